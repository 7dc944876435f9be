"""What a person reads at the end of a command: the few figures, what to hold them against, and warnings in words.

All figures are in ``metrics.json``; nothing here is computed, only chosen and worded. A metric that is not there leaves
its part out.
"""

from collections.abc import Iterator, Mapping
from textwrap import wrap

WIDTH, INDENT = 79, 13
"""Columns of a line, and where the text begins behind its name."""
MOST_LINES = 16
"""Lines of figures and warnings; what a command adds (where things are) makes 20 at most."""
MOST_STRUCTURE_ROWS = 8
BLURRED_DB = 25.0
FAR, FEW_FIELDS, COPIED = 5.0, 2000, 0.5
"""Samples are far from the data at so many times the FD of held-out fields, copies below such a nearest ratio."""

Metrics = Mapping[str, float]


def summary(metrics: Metrics) -> list[str]:
    """Lines of at most 79 characters, at most ``MOST_LINES`` of them.

    Args:
        metrics: Dotted keys as in ``metrics.json``, of one stage or of several.
    """
    warnings = [line for text in _warnings(metrics) for line in _wrapped("warning", text)]
    lines = [line for name, text in _figures(metrics) for line in _wrapped(name, text)]
    room = max(1, MOST_LINES - len(warnings))
    if len(lines) > room:
        lines = [*lines[: room - 1], f"({len(lines) - room + 1} more lines: see metrics.json)"]
    return [*lines, *warnings]


def _wrapped(name: str, text: str) -> list[str]:
    head = f"{name + ': ' if name else '':<{INDENT}}"
    return wrap(head + text, WIDTH, subsequent_indent=" " * INDENT, break_on_hyphens=False)


def _figures(metrics: Metrics) -> Iterator[tuple[str, str]]:
    """What a stage made, by its name; the most telling first, since what is too long is cut at its end."""
    yield from _fields(_part(metrics, "reconstruction"))
    yield from _samples(_part(metrics, "generation"))
    yield from _readers(_part(metrics, "probe"), metrics)
    yield from _structure(_part(metrics, "structure"))
    yield from _base(metrics)
    yield from _models(metrics)


def _part(metrics: Metrics, prefix: str) -> dict[str, float]:
    """The metrics under a prefix, without it."""
    return {name.removeprefix(prefix + "."): value for name, value in metrics.items() if name.startswith(prefix + ".")}


def _base(metrics: Metrics) -> Iterator[tuple[str, str]]:
    if "base.train_psnr_mean" not in metrics:
        return
    text = f"latents give {metrics['base.train_psnr_mean']:.1f} dB on its training signals"
    if "base.heldout_psnr_mean" in metrics:
        text += f", {metrics['base.heldout_psnr_mean']:.1f} dB on held-out ones"
    yield "base field", f"{text}; one field for all {metrics['base.mean_field_psnr']:.1f} dB"


def _fields(scores: Metrics) -> Iterator[tuple[str, str]]:
    if "num_fields" in scores:
        failed = int(scores["num_failures"])
        yield "fields", f"{int(scores['num_fields'])} fitted, " + (f"{failed} failed" if failed else "none failed")
    if "psnr_mean" in scores:
        text = f"PSNR {scores['psnr_mean']:.1f} dB; 95% of the fields above {scores['psnr_p05']:.1f} dB"
        text += f"; test split {scores['test.psnr_mean']:.1f} dB" if "test.psnr_mean" in scores else ""
        yield "", text + (f"; SSIM {scores['ssim_mean']:.3f} (1: equal)" if "ssim_mean" in scores else "")
    if "iou_median" in scores:
        text = f"IoU {scores['iou_median']:.3f} (1: equal), F-score {scores['f_score_median']:.3f} "
        text += f"(at most {scores['f_score_ceiling_median']:.3f}), Chamfer {scores['chamfer_l1_median']:.4f} in a "
        text += f"cube of side 2: medians of {int(scores['num_shapes'])} shapes, {int(scores['num_empty'])} empty"
        yield "", text
    if "autoencoder_psnr_mean" in scores:
        text = f"{scores['autoencoder_psnr_mean']:.1f} dB through it; {scores['autoencoder_fitted_psnr_mean']:.1f} dB "
        yield "autoencoder", text + f"of the same {int(scores['autoencoder_num'])} fields as they are stored"
    if "recomputed.num" in scores:
        text = f"at most {scores['recomputed.psnr_difference_max']:.1e} dB from the record"
        yield "anew", f"{int(scores['recomputed.num'])} fields evaluated: {text}"


def _readers(scores: Metrics, metrics: Metrics) -> Iterator[tuple[str, str]]:
    """Accuracy of the readers on weights beside the same readers on the signals themselves."""
    other = "pixels" if "pixels_accuracy" in scores else "d2"
    names = {"accuracy": "logistic regression", "one_nn": "nearest neighbour"}
    texts = [f"{scores[f'weights_{key}']:.1%} by {name}" for key, name in names.items() if f"weights_{key}" in scores]
    if "classifier.test_accuracy" in metrics:
        texts.insert(0, f"{metrics['classifier.test_accuracy']:.1%} by the trained classifier")
    if texts:
        yield "classes", f"right from weights: {', '.join(texts)}"
    key = "canonical"
    texts = [f"{scores[f'{key}_{of}']:.1%} by {name}" for of, name in names.items() if f"{key}_{of}" in scores]
    if texts:
        yield "", f"from their canonical form: {', '.join(texts)}"
    texts = [f"{scores[f'{other}_{key}']:.1%} by {name}" for key, name in names.items() if f"{other}_{key}" in scores]
    if texts:
        what = {"pixels": "pixels", "d2": "D2 histograms"}[other]
        yield "", f"from {what}: {', '.join(texts)}; always the largest class: {scores['largest_class']:.1%}"


def _models(metrics: Metrics) -> Iterator[tuple[str, str]]:
    if "diffusion.val_loss" in metrics:
        text = f"denoising error {metrics['diffusion.val_loss']:.3f} on held-out fields"
        yield "diffusion", f"{text} (1: nothing learned)"


def _samples(scores: Metrics) -> Iterator[tuple[str, str]]:
    score, name = ("fd", "FD") if "fd" in scores else ("mmd_cd", "MMD (Chamfer)")
    if score in scores:
        rows = {
            "held-out fields": f"fitted_test.{score}",
            "copies with noise": f"noise_{score}_at_equal_distance",
            "Gaussian of the weights": f"gaussian.{score}",
        }
        beside = "".join(f"; {what} {scores[key]:.3g}" for what, key in rows.items() if key in scores)
        yield "samples", f"{name} {scores[score]:.3g}{beside} (0: as the data)"
    if "recall" in scores:
        text = f"precision {scores['precision']:.2f}, recall {scores['recall']:.2f}"
        yield "", text + _heldout(scores, "precision", "recall")
    if "one_nna" in scores:
        text = f"1-NNA {scores['one_nna']:.0f}% (50%: like the data), coverage {scores['cov']:.0f}%"
        yield "", text + _heldout(scores, "one_nna", "cov")
    if "nearest_ratio" in scores:
        text = f"distance to the nearest training field: {scores['nearest_ratio']:.2f} of a held-out field's"
        yield "samples" if score not in scores else "", f"{text} (0: copies)"
    if "num_classes_seen" in scores:
        text = f"{int(scores['num_classes_seen'])} of {int(scores['num_classes'])} classes; a classifier is sure by "
        yield "", f"{text}{scores['top_probability']:.0%} ({scores['top_probability_real']:.0%} of real ones)"


def _heldout(scores: Metrics, *names: str) -> str:
    """The same scores of the held-out fields, where these were enough to be scored."""
    values = [scores[f"fitted_test.{name}"] for name in names if f"fitted_test.{name}" in scores]
    return f"; held-out fields {', '.join(f'{value:.3g}' for value in values)}" if values else ""


def _structure(scores: Metrics) -> Iterator[tuple[str, str]]:
    """One line for each kind of weights and distance of the starts; of many distances the least and the largest."""
    rows: dict[str, dict[str, float]] = {}
    for key, value in scores.items():
        row, _, name = key.rpartition(".")
        rows.setdefault(row, {})[name] = value
    if len(rows) > MOST_STRUCTURE_ROWS:
        ends = {".lambda_0", ".lambda_1", ""}
        rows = {row: values for row, values in rows.items() if f".{row}"[f".{row}".rfind(".lambda_") :] in ends}
    names = ("cosine", "cosine_ba", "barrier", "effective_rank", "cosine_between_signals", "cosine_ba_between_signals")
    for row, values in rows.items():
        texts = []
        for name in names:
            if name in values:
                band = [values[f"{name}_{end}"] for end in ("low", "high") if f"{name}_{end}" in values]
                spread = " ({:.3g} to {:.3g})".format(*band) if len(band) == 2 and len(rows) <= 2 else ""
                texts.append(f"{name.replace('_', ' ')} {values[name]:.3g}{spread}")
        if texts:
            yield row.replace(".lambda_", " ").replace("lambda_", "lambda ") or "fields", ", ".join(texts)


def _warnings(metrics: Metrics) -> Iterator[str]:
    """What is wrong with the fields themselves, missing or blurred ones, and with the samples."""
    fields, failed = (metrics.get(f"reconstruction.{name}", 0) for name in ("num_fields", "num_failures"))
    if failed:
        what = "1 signal has" if failed == 1 else f"{int(failed)} signals have"
        yield f"{what} no field; wsrl info lists the reasons"
    pictures = "reconstruction.sign_agreement_mean" not in metrics
    if pictures and metrics.get("reconstruction.psnr_mean", BLURRED_DB) < BLURRED_DB:
        yield "the fields are blurred: more steps (fit.steps) or a larger rank (representation.rank) bring them closer"
    yield from _sample_warnings(_part(metrics, "generation"), fields)


def _sample_warnings(generation: Metrics, fields: float) -> Iterator[str]:
    """What is wrong with samples: far from the data, no better than noise, copies, or nothing at all."""
    if "fd" in generation and "fitted_test.fd" in generation:
        times = generation["fd"] / max(generation["fitted_test.fd"], 1e-9)
        if times > FAR:
            num = int(generation.get("num_train", fields))
            few = f": {num} training fields are few" if 0 < num < FEW_FIELDS else ""
            yield f"samples are far from the data ({times:.0f} times the FD of held-out fields){few}"
        beaten = "noise_fd_at_equal_distance" in generation and (
            generation["noise_fd_at_equal_distance"] <= generation["fd"]
        )
        if beaten:
            yield "training fields with noise are as new as the samples, and closer to the data"
    if generation.get("nearest_ratio", 1.0) < COPIED:
        yield "samples are nearer to training fields than new ones would be: the model may be copying them"
    if generation.get("num_invalid"):
        yield f"{int(generation['num_invalid'])} samples are not numbers or have no surface"

"""``wsrl train classifier|regressor|autoencoder|diffusion``: Lightning's own command line, on a weight store.

Fits, tests on the test split where there is one, and exports the model. Given again, it goes on with what is in its
folder, keeps a finished model, and refuses the folder of another one. ``--trainer.*``, ``--model.*``, ``--data.*``
and ``--checkpoint.*`` are those of LightningCLI.
"""

from wsrl.errors import UserError

HELP = """usage: wsrl train {classifier,regressor,autoencoder,diffusion} [--config FILE] [--data.store DIR] [options]

Train a model over the weights in a store with Lightning.

  classifier   the class of a field's signal, from its weights
  regressor    a stored metric of a field (--model.target psnr), from its weights
  autoencoder  from weights to a short latent and back, on the error of the weights and of the rendered signal
  diffusion    a generator of weights

The encoder of the first two is chosen with --model.encoder {mlp,deepsets,statnn,transformer,unf} and its options with
--model.options '{name: value}'.

wsrl train TASK --help lists all options, --print_config writes them as YAML for --config.
"""


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if argv else 2
    from wsrl.cli.display import show_progress
    from wsrl.training.run import TASKS, train_with

    task, *options = argv
    if task not in TASKS:
        raise UserError(f"unknown task {task!r}", allowed=", ".join(TASKS), do="run wsrl train --help")
    model = train_with(task, options, command=" ".join(["wsrl", "train", *argv]), progress=show_progress)
    for name, value in model.metrics.items():
        print(f"{name:<40} {value:.4f}")
    return 0

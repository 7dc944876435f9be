"""``wsrl eval structure``: what fits of the same signals from different starts have in common."""

from pathlib import Path

from wsrl.cli.display import show_progress
from wsrl.cli.option_names import picked
from wsrl.errors import UserError

OUT = "structure.json"
OF_DATA = ("base", "representation", "lambdas", "config", "source")


def structure(options) -> dict[str, float]:
    """The measures of a store, of two stores, or of fits of the data that are made for it."""
    from wsrl.evaluation.structure_scores import StructureOptions, measure_data, measure_store, measure_stores

    partner, lambdas = options["with"], options.pop("lambdas")
    made = picked(StructureOptions, options, **({} if lambdas is None else {"lambdas": tuple(lambdas)}))
    if (Path(options.path) / "manifest.json").is_file():
        for name in OF_DATA:
            if (lambdas if name == "lambdas" else options[name]) is not None:
                wrong = f"--{name} is given, but {options.path} is a store, whose fields are fitted"
                raise UserError(wrong, allowed="--with STORE, --num, --points", do="leave it out, or give the data")
        return measure_store(options.path, made) if partner is None else measure_stores(options.path, partner, made)
    if partner is not None:
        raise UserError(f"--with is given, but {options.path} is no store", do="give two stores, or leave out --with")
    options.out = options.out or OUT
    return measure_data(*opened(options), made, progress=show_progress)


def opened(options) -> tuple:
    """The source, what is fitted by kind, as ``wsrl build`` would choose it, and the base field."""
    from wsrl.cli.parser import say_notes
    from wsrl.fields.modulated_base import BaseField
    from wsrl.fields.representation import KINDS
    from wsrl.signals import open_source

    config = read_config(options.config)
    source = open_source(options.path, **(config.get("source", {}) | (options.source or {})))
    say_notes(source)
    kinds = options.representation or [kind for kind in KINDS if options.base or "lora" not in kind]
    recipes = {kind: recipe(kind, config, source) for kind in kinds}
    adapters = any(representation.is_adapter for representation, _ in recipes.values())
    return source, recipes, BaseField.from_pretrained(options.base) if options.base and adapters else None


def read_config(path: str | None) -> dict:
    """The content of a configuration file of ``wsrl build``."""
    import yaml

    if path is None:
        return {}
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"--config: {path} is no YAML: {error}", allowed="a configuration of wsrl build") from error
    if not isinstance(config, dict):
        raise UserError(f"--config: {path} holds no keys", allowed="a configuration of wsrl build")
    return config


def recipe(kind: str, config: dict, source) -> tuple:
    """What the weights of a kind are and how they are fitted, as ``wsrl build`` would choose them for the data."""
    from wsrl.cli.build import data_defaults, make_parser

    parser = make_parser()
    fixed = {"data": source.name, "out": "none", "representation": {"kind": kind}}
    parser.set_defaults(data_defaults(parser.parse_object(fixed), source))
    fixed["representation"] = config.get("representation", {}) | fixed["representation"]
    made = parser.instantiate(parser.parse_object(config | fixed))
    return made.representation, made.fit

"""Options that make a base field and a fit take a fraction of a second."""

TINY_BASE = (
    "--train.model.field.width", "8", "--train.model.field.depth", "2", "--train.model.field.num_frequencies", "4",
    "--train.model.latent_size", "4", "--train.stages", "[{resolution: 1.0, batch_size: 8, steps: 5}]",
    "--train.num_heldout", "2", "--train.heldout_steps", "2", "--device", "cpu",
)  # fmt: skip
TINY_FIT = ("--fit.steps", "3", "--fit.batch_size", "4", "--device", "cpu")

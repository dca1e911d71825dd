"""The table of every hyperparameter of `train` and `tune`; `model_code.hyperparameters` derives all forms from it."""

from typing import Final

from model_code.hyperparameters.row import FINETUNE, HEAD, Hyperparameter, Kind, Mode, Scale, Strategy

WITHOUT_PRIOR: Final = {"prior": 0.0, "weight_decay": 5.0, "dropout": 0.5, "mixup": 0.4}
"""The best known recipe of a head that ignores the pretrained classifier; every search tries it."""

TABLE: Final[tuple[Hyperparameter, ...]] = (
    Hyperparameter(
        "mode",
        Kind.CHOICE,
        Mode.TRIAL,
        "trial: judge a recipe; final: refit it and export the model",
        choices=tuple(Mode),
    ),
    Hyperparameter(
        "strategy",
        Kind.CHOICE,
        Strategy.HEAD,
        "head: frozen backbone; finetune: train its blocks too",
        choices=tuple(Strategy),
    ),
    Hyperparameter("architecture", Kind.TEXT, "mobilenet_v2", "name of a torchvision classification model"),
    Hyperparameter("seed", Kind.INTEGER, 0, "the same seed gives the same weights", low=0, high=2**31 - 1),
    Hyperparameter(
        "epochs", Kind.INTEGER, 30, "passes over the training photos", low=1, high=1000, strategies=HEAD
    ),
    Hyperparameter(
        "epochs", Kind.INTEGER, 6, "passes over the training photos", low=1, high=1000, strategies=FINETUNE
    ),
    # A head is at its best when the rate has fallen: stopping where it stagnates at a high rate has cost two points of
    # accuracy (stanford-dogs, one view). The epoch kept is the best on validation all the same.
    Hyperparameter(
        "patience",
        Kind.INTEGER,
        0,
        "stop after so many epochs without a better validation accuracy; 0: never",
        low=0,
        high=1000,
        strategies=HEAD,
    ),
    Hyperparameter(
        "patience",
        Kind.INTEGER,
        3,
        "stop after so many epochs without a better validation accuracy; 0: never",
        low=0,
        high=1000,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "learning_rate",
        Kind.FLOAT,
        2e-3,
        "peak learning rate of the head",
        low=1e-7,
        high=10.0,
        search=(5e-4, 1e-2),
        scale=Scale.LOGARITHMIC,
        strategies=HEAD,
    ),
    Hyperparameter(
        "learning_rate",
        Kind.FLOAT,
        1e-3,
        "peak learning rate of the head",
        low=1e-7,
        high=10.0,
        search=(1e-4, 1e-2),
        scale=Scale.LOGARITHMIC,
        strategies=FINETUNE,
    ),
    # The pretrained classifier's rows as starting point: 4 points of accuracy on stanford-dogs, where the weights know
    # the classes. With a prior, the decay pulls towards it instead of towards zero, and may be stronger.
    Hyperparameter(
        "prior",
        Kind.FLOAT,
        1.5,
        "strength of the pretrained classifier's rows as prior of a linear head; 0: off",
        low=0.0,
        high=10.0,
        search=(0.0, 2.5),
        strategies=HEAD,
    ),
    Hyperparameter(
        "prior",
        Kind.FLOAT,
        1.5,
        "strength of the pretrained classifier's rows as prior of the head it starts from; 0: off",
        low=0.0,
        high=10.0,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "weight_decay",
        Kind.FLOAT,
        20.0,
        "decoupled weight decay of AdamW, towards the prior",
        low=0.0,
        high=100.0,
        search=(0.5, 60.0),
        scale=Scale.LOGARITHMIC,
        strategies=HEAD,
    ),
    Hyperparameter(
        "weight_decay",
        Kind.FLOAT,
        0.05,
        "decoupled weight decay of AdamW",
        low=0.0,
        high=100.0,
        search=(1e-3, 0.5),
        scale=Scale.LOGARITHMIC,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "dropout",
        Kind.FLOAT,
        0.3,
        "fraction of features dropped before the last layer",
        low=0.0,
        high=0.95,
        search=(0.0, 0.7),
    ),
    Hyperparameter(
        "label_smoothing",
        Kind.FLOAT,
        0.1,
        "probability spread over all classes",
        low=0.0,
        high=0.9,
        search=(0.0, 0.3),
    ),
    Hyperparameter(
        "mixup",
        Kind.FLOAT,
        0.3,
        "alpha of the Beta distribution that mixes pairs; 0: off",
        low=0.0,
        high=10.0,
        search=(0.0, 1.0),
    ),
    Hyperparameter(
        "cutmix",
        Kind.FLOAT,
        0.0,
        "alpha of the Beta distribution that pastes patches; 0: off",
        low=0.0,
        high=10.0,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "batch_size",
        Kind.INTEGER,
        256,
        "photos per step, over all instances",
        low=2,
        high=65536,
        strategies=HEAD,
    ),
    Hyperparameter(
        "batch_size",
        Kind.INTEGER,
        64,
        "photos per step, over all instances",
        low=2,
        high=65536,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "hidden", Kind.INTEGER, 0, "width of the head's hidden layer; 0: a linear head", low=0, high=8192
    ),
    Hyperparameter(
        "warmup", Kind.FLOAT, 0.1, "fraction of the steps in which the rate rises", low=0.0, high=0.9
    ),
    Hyperparameter(
        "class_weighting", Kind.FLOAT, 0.0, "0: photos count alike; 1: classes count alike", low=0.0, high=1.0
    ),
    Hyperparameter(
        "blocks",
        Kind.INTEGER,
        2,
        "how many of the last blocks are trained; 0: all",
        low=0,
        high=1000,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "backbone_rate",
        Kind.FLOAT,
        0.1,
        "the blocks' learning rate as a fraction of the head's",
        low=1e-4,
        high=1.0,
        search=(1e-2, 1.0),
        scale=Scale.LOGARITHMIC,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "augmentation",
        Kind.CHOICE,
        "trivial",
        "how training photos are varied",
        choices=("none", "flip", "trivial", "rand"),
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "ema",
        Kind.FLOAT,
        0.99,
        "decay per step of the averaged weights that are kept; 0: off",
        low=0.0,
        high=0.99999,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "accumulate",
        Kind.INTEGER,
        1,
        "steps whose gradients are summed: less memory, same batch",
        low=1,
        high=1024,
        strategies=FINETUNE,
    ),
    Hyperparameter(
        "precision",
        Kind.CHOICE,
        "auto",
        "arithmetic of the forward pass",
        choices=("auto", "float32", "bfloat16", "float16"),
        strategies=FINETUNE,
    ),
)

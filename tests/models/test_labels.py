"""ImageNet's class names, and whose they certainly are."""

from __future__ import annotations

import pytest

from resdeploy.models.family.variants import VARIANTS
from resdeploy.models.labels import answers_imagenet, imagenet_classes
from resdeploy.models.weights.known import known_weights
from resdeploy.records import ModelFacts


def facts(weights: str, **changed: object) -> ModelFacts:
    return ModelFacts.model_validate(
        {
            "reference": "resnet50",
            "weights": weights,
            "weights_sha256": "0" * 64,
            "trained": True,
            "num_classes": 1000,
            "in_channels": 3,
            "params": 25_557_032,
            **changed,
        }
    )


def test_the_thousand_names_are_different_and_in_their_places() -> None:
    names = imagenet_classes()
    assert len({name.casefold() for name in names}) == len(names) == 1000
    assert all(name == name.strip() and name.isascii() for name in names)
    known = {
        0: "tench", 1: "goldfish", 134: "crane bird", 207: "golden retriever", 281: "tabby",
        264: "Cardigan Welsh corgi", 474: "cardigan", 517: "crane", 639: "maillot tank suit",
        657: "missile", 744: "projectile", 954: "banana", 999: "toilet tissue",
    }  # fmt: skip
    assert {index: names[index] for index in known} == known


def test_published_weights_of_the_family_answer_imagenet() -> None:
    for row in VARIANTS:
        for weights in known_weights(row.name):
            assert answers_imagenet(facts(weights.reference, reference=row.name)), weights


@pytest.mark.parametrize(
    ("expected", "weights", "changed"),
    [
        (True, "pretrained", {}),
        (True, "pretrained", {"reference": "torchvision:resnet50"}),
        (
            True,
            "pretrained",
            {
                "reference": "torchvision:mobilenet_v2",
                "weights_origin": "https://download.pytorch.org/models/mobilenet_v2-7ebf99e0.pth",
            },
        ),
        (False, "pretrained", {"reference": "torchvision:mobilenet_v2", "num_classes": 10}),
        (False, "w.pth", {"reference": "torchvision:mobilenet_v2"}),
        (
            True,
            "pretrained",
            {"reference": "timm:vgg16", "weights_origin": "hf:timm/vgg16.tv_in1k@0af3/m.bin"},
        ),
        (True, "torchvision:IMAGENET1K_V1", {"reference": "torchvision:vgg16"}),
        (True, "hf:timm/convnext_tiny.in12k_ft_in1k_384", {"reference": "timm:convnext_tiny"}),
        (True, "hf:timm/resnet50.a1_in1k@main", {}),
        (False, "pretrained", {"num_classes": 10}),
        (False, "pretrained", {"reference": "resnet50t"}),
        (False, "pretrained", {"reference": "mypackage.mymodel:build"}),
        (False, "pretrained", {"reference": "timm:resnetv2_50x1_bit.goog_in21k"}),
        (
            False,
            "pretrained",
            {"reference": "timm:vgg16", "weights_origin": "hf:timm/vgg16.in12k@0af3/in1k.bin"},
        ),
        (False, "hf:timm/resnetaa50d.sw_in12k", {}),
        (False, "hf:timm/resnet50.in1k_ft_flowers", {}),
        (False, "hf:somebody/resnet50.a1_in1k", {}),
        (False, "weights/hf:timm/resnet50.a1_in1k", {}),
        (False, "weights/resnet50.pth", {}),
        (False, "random:0", {"trained": False}),
    ],
)
def test_names_are_given_only_where_they_are_certain(
    expected: bool, weights: str, changed: dict[str, object]
) -> None:
    assert answers_imagenet(facts(weights, **changed)) is expected

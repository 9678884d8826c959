from __future__ import annotations

import pytest

from learners.networks.pretraining import pretraining_data

FILE = "some.safetensors"


@pytest.mark.parametrize(
    ("name", "weights", "expected"),
    [
        ("efficientnet_b0", FILE, "ImageNet-1k"),
        ("efficientnet_b0", "pretrained", "ImageNet-1k"),
        ("vit_small_patch14_dinov2.lvd142m", FILE, "LVD-142M, self-supervised"),
        ("timm/vit_small_patch16_dinov3.lvd1689m", FILE, "LVD-1689M, self-supervised"),
        ("vit_base_patch32_clip_224.laion2b", FILE, "LAION-2B, image and text"),
        ("vit_base_patch32_clip_224.openai", FILE, "WIT-400M, image and text"),
        ("vit_base_patch16_siglip_224.v2_webli", FILE, "WebLI, image and text"),
        ("vit_small_patch16_224.dino", FILE, "ImageNet-1k, self-supervised"),
        ("resnetv2_50x1_bit.goog_in21k", FILE, "ImageNet-21k"),
        ("resnetv2_50x1_bit.goog_in21k_ft_in1k", FILE, "ImageNet-21k, then ImageNet-1k"),
        ("tf_efficientnetv2_s.in21k", FILE, "ImageNet-21k"),
        ("mobilenetv4_conv_small.e2400_r224_in1k", FILE, "ImageNet-1k"),
        ("timm/resnet18", "pretrained", "ImageNet-1k"),
        ("timm/resnet18", FILE, ""),
        ("mobilenetv1_075", FILE, ""),
        ("conv4", "random", "none"),
        ("vit_small_patch14_dinov2.lvd142m", "random", "none"),
        ("efficientnet_b0", "", "none"),
    ],
)
def test_the_tag_of_a_name_says_what_its_weights_have_seen(name: str, weights: str, expected: str) -> None:
    assert pretraining_data(name, weights) == expected

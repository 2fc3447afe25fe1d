"""Tiny Hugging Face model folders, made from a configuration, and a tiny module; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

WIDTH = 12
_WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "the", "cat", "dog", "red", "blue", "runs", "sleeps", "small", "big", "and"]


def bert_folder(folder: Path, seed: int = 0) -> Path:
    """A BERT of one layer that knows a dozen words."""
    transformers = pytest.importorskip("transformers", reason="transformers (extra hf) is not installed")
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(_WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    transformers.BertModel(config).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(_WORDS))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    return folder


def vit_folder(folder: Path, seed: int = 0) -> Path:
    """A vision transformer of one layer on four patches."""
    transformers = pytest.importorskip("transformers", reason="transformers (extra hf) is not installed")
    torch.manual_seed(seed)
    config = transformers.ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=16, patch_size=8
    )
    transformers.ViTModel(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"image_processor_type": "ViTImageProcessor", "do_resize": true, "size": {"height": 16, "width": 16}, "do_rescale": true,'
        ' "rescale_factor": 0.00392156862745098, "do_normalize": true, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
    )
    return folder


def wave_folder(folder: Path, seed: int = 0) -> Path:
    """A wav2vec 2.0 of one layer."""
    transformers = pytest.importorskip("transformers", reason="transformers (extra hf) is not installed")
    torch.manual_seed(seed)
    config = transformers.Wav2Vec2Config(
        hidden_size=WIDTH, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, conv_dim=(8, 8), conv_stride=(20, 8),
        conv_kernel=(20, 8), num_feat_extract_layers=2, num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2, vocab_size=8,
    )  # fmt: skip
    transformers.Wav2Vec2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        '{"feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1, "sampling_rate": 8000, "padding_value": 0.0,'
        ' "do_normalize": true, "return_attention_mask": false}'
    )
    return folder


class Colours(nn.Module):
    """Mean colours of the quarters of a picture under a linear map; counts its calls."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.linear = nn.Linear(3, WIDTH)
        nn.init.normal_(self.linear.weight, generator=torch.Generator().manual_seed(seed))
        nn.init.zeros_(self.linear.bias)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 4, features)."""
        pooled = nn.functional.adaptive_avg_pool2d(x[:, :3], 2).flatten(2).transpose(1, 2)
        result: Tensor = self.dropout(self.linear(pooled))
        return result

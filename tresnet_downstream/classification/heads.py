"""Heads: from the last feature map to a logit for each class.

Each head has a class method ``arguments_from``, which infers its arguments from the weights in a file. The names of its
weights in the releases are in ``weights/head_names.py``.

``forward`` takes a ``mask``, N x H x W, which is True at the positions of the image and False at padding; None stands
for no padding. Padding does not affect the logits.

The attribute ``class_bias`` is the parameter with one number for each class that is added to the logits.

The last layer runs in the precision of its weights, also under autocast. In bfloat16, with 8 significant bits, many
images would have equal logits, so that they could not be ranked.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tresnet_downstream.errors import UserError
from tresnet_downstream.registry import MODELS


@MODELS.register_module()
class LinearHead(nn.Module):
    """Global average pooling and one linear layer, as in the TResNet and ASL releases.

    Args:
        in_channels: channels of the feature map.
        num_classes: number of logits.
        dropout: dropout probability of the pooled features in training, at least 0 and below 1.

    Examples:
        >>> LinearHead(8, num_classes=3)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, in_channels: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise UserError(f"model.head.dropout={dropout!r}: give a number from 0 to below 1")
        self.num_classes, self.dropout = num_classes, dropout
        self.fc = nn.Linear(in_channels, num_classes)
        nn.init.normal_(self.fc.weight, 0, 0.01)

    @classmethod
    def arguments_from(cls, weights: Mapping[str, Tensor]) -> dict[str, int]:
        """The arguments of the head with these weights, except ``in_channels``."""
        return {"num_classes": len(weights["fc.weight"])}

    @property
    def class_bias(self) -> nn.Parameter:
        """The bias of the logits, (num_classes,)."""
        return self.fc.bias

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """N x in_channels x H x W to N x num_classes."""
        with torch.autocast(features.device.type, enabled=False):
            pooled = average_pooled(features, mask, self.fc.weight.dtype)
            logits: Tensor = self.fc(F.dropout(pooled, self.dropout, self.training) if self.dropout else pooled)
            return logits


@MODELS.register_module()
class BottleneckHead(nn.Module):
    """Global average pooling and two linear layers without an activation between, as in ASL's OpenImages release.

    With thousands of classes, the two layers have fewer weights than a single linear layer.

    Args:
        in_channels: channels of the feature map.
        num_classes: number of logits.
        bottleneck_channels: number of channels between the two layers.

    Examples:
        >>> BottleneckHead(8, num_classes=3, bottleneck_channels=2)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(self, in_channels: int, num_classes: int, bottleneck_channels: int = 200) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.bottleneck = nn.Linear(in_channels, bottleneck_channels)
        self.fc = nn.Linear(bottleneck_channels, num_classes)
        nn.init.normal_(self.fc.weight, 0, 0.01)

    @classmethod
    def arguments_from(cls, weights: Mapping[str, Tensor]) -> dict[str, int]:
        """The arguments of the head with these weights, except ``in_channels``."""
        return {"num_classes": len(weights["fc.weight"]), "bottleneck_channels": len(weights["bottleneck.weight"])}

    @property
    def class_bias(self) -> nn.Parameter:
        """The bias of the logits, (num_classes,)."""
        return self.fc.bias

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """N x in_channels x H x W to N x num_classes."""
        with torch.autocast(features.device.type, enabled=False):
            logits: Tensor = self.fc(self.bottleneck(average_pooled(features, mask, self.fc.weight.dtype)))
            return logits


class PooledFeatures(nn.Module):
    """Global average pooling without a classifier, for backbones of detectors and for embeddings."""

    num_classes = 0

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """N x C x H x W to N x C."""
        return average_pooled(features, mask, features.dtype)


def average_pooled(features: Tensor, mask: Tensor | None, dtype: torch.dtype) -> Tensor:
    """N x C x H x W to N x C means, over the positions in ``mask`` (N x H x W) or, without one, over all."""
    if mask is None:
        return features.mean((2, 3), dtype=dtype)
    shares = mask.to(dtype)
    shares = shares / shares.sum((1, 2), keepdim=True)
    return torch.einsum("nchw,nhw->nc", features.to(dtype), shares)


@MODELS.register_module()
class MLDecoderHead(nn.Module):
    """ML-Decoder (Ridnik et al., 2021, arXiv:2111.12933): fixed queries attend to the feature map.

    Each query represents a group of classes; with one query for each class, decoding is full. As published, there is
    one decoder layer without self-attention, the queries are random and not trained, and there are 100 by default.
    Departure: the decoder layer has the batch as its first dimension.

    Args:
        in_channels: channels of the feature map.
        num_classes: number of logits.
        num_groups: number of queries; None for 100. If there are fewer classes, it is the number of classes. A query
            represents ``ceil(num_classes / num_groups)`` classes in order; the last queries may have fewer, or none.
        embed_dim: channels of the decoder.
        num_heads: number of attention heads.
        feedforward_dim: channels of the feed-forward layer.
        dropout: dropout probability in training.

    Examples:
        >>> MLDecoderHead(8, num_classes=3, embed_dim=16)(torch.rand(2, 8, 4, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        num_groups: int | None = None,
        embed_dim: int = 768,
        num_heads: int = 8,
        feedforward_dim: int = 2048,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        if num_groups is not None and num_groups < 1:
            raise UserError(f"num_groups={num_groups}: give a number of at least 1, or None for 100")
        if embed_dim % num_heads:
            raise UserError(f"embed_dim={embed_dim} must be divisible by num_heads={num_heads}")
        self.num_classes = num_classes
        self.num_groups = min(num_groups or 100, num_classes)
        group_size = -(-num_classes // self.num_groups)
        self.embed = nn.Linear(in_channels, embed_dim)
        self.register_buffer("queries", torch.empty(self.num_groups, embed_dim).normal_())
        self.decoder = DecoderLayer(embed_dim, num_heads, feedforward_dim, dropout)
        self.group_weight = nn.Parameter(torch.empty(self.num_groups, embed_dim, group_size))
        self.group_bias = nn.Parameter(torch.zeros(num_classes))
        nn.init.xavier_normal_(self.group_weight)

    queries: Tensor

    @classmethod
    def arguments_from(cls, weights: Mapping[str, Tensor]) -> dict[str, int]:
        """The arguments of the head with these weights, except ``in_channels`` and ``num_heads``.

        ``num_heads`` cannot be inferred from tensor shapes.
        """
        groups, embed_dim = weights["queries"].shape
        return {
            "num_classes": len(weights["group_bias"]),
            "num_groups": groups,
            "embed_dim": embed_dim,
            "feedforward_dim": len(weights["decoder.linear1.weight"]),
        }

    @property
    def class_bias(self) -> nn.Parameter:
        """The bias of the logits, (num_classes,)."""
        return self.group_bias

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        """N x in_channels x H x W to N x num_classes."""
        memory = F.relu(self.embed(features.flatten(2).transpose(1, 2)))
        padding = None if mask is None else ~mask.flatten(1)
        decoded = self.decoder(self.queries.expand(memory.shape[0], -1, -1), memory, padding)
        with torch.autocast(features.device.type, enabled=False):
            by_group = torch.einsum("ngd,gdk->ngk", decoded.to(self.group_weight.dtype), self.group_weight)
            return by_group.flatten(1)[:, : self.num_classes] + self.group_bias

    def attention_maps(self, features: Tensor, classes: Tensor) -> Tensor:
        """The attention of the query of a class's group to each position, as the mean over the attention heads.

        Classes of the same group have the same query and therefore the same map.

        Args:
            features: N x in_channels x H x W.
            classes: N class indices, one for each feature map.

        Returns:
            N x H x W; each map sums to 1.
        """
        memory = F.relu(self.embed(features.flatten(2).transpose(1, 2)))
        groups = torch.div(classes, self.group_weight.shape[2], rounding_mode="floor")
        result: Tensor = self.decoder.attention(self.queries[groups][:, None], memory)[:, 0].unflatten(
            1, features.shape[2:]
        )
        return result


class DecoderLayer(nn.Module):
    """A transformer decoder layer without self-attention, with norms after the residual connections."""

    def __init__(self, embed_dim: int, num_heads: int, feedforward_dim: int, dropout: float) -> None:
        super().__init__()
        self.multihead_attn = nn.MultiheadAttention(embed_dim, num_heads, dropout=dropout, batch_first=True)
        self.linear1 = nn.Linear(embed_dim, feedforward_dim)
        self.linear2 = nn.Linear(feedforward_dim, embed_dim)
        self.norm1, self.norm2, self.norm3 = (nn.LayerNorm(embed_dim) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, queries: Tensor, memory: Tensor, padding: Tensor | None = None) -> Tensor:
        """N x G x D queries and N x L x D memory to N x G x D; memory is ignored where ``padding`` (N x L) is True."""
        x = self._normed(queries)
        attended, _ = self.multihead_attn(x, memory, memory, key_padding_mask=padding, need_weights=False)
        x = self.norm2(x + self.dropout(attended))
        expanded = self.dropout(F.relu(self.linear1(x)))
        result: Tensor = self.norm3(x + self.dropout(self.linear2(expanded)))
        return result

    def attention(self, queries: Tensor, memory: Tensor) -> Tensor:
        """N x G x D queries and N x L x D memory to N x G x L weights, the mean over the attention heads."""
        result: Tensor = self.multihead_attn(self._normed(queries), memory, memory, average_attn_weights=True)[1]
        return result

    def _normed(self, queries: Tensor) -> Tensor:
        # In place of self-attention, the published layer adds the queries to themselves.
        result: Tensor = self.norm1(queries + self.dropout(queries))
        return result

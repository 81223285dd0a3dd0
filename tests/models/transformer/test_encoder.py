"""The encoder: order of its parts, independence of neighbours, memory."""

import dataclasses
import weakref

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from llmdet.models.quirks import Quirks
from llmdet.models.structures import FeaturePyramid
from llmdet.models.transformer.encoder import GroundingDINOEncoder
from llmdet.models.transformer.positions import encode_text_positions
from llmdet.models.transformer.pyramid import pixel_centres
from llmdet.ops.deformable_attention import use_implementation
from llmdet.testing.fake_device import to_fake_device

DIMS, HEADS = 16, 2


def encoder(layers=2, **changes):
    attention = {"embed_dims": DIMS, "num_heads": HEADS}
    made = GroundingDINOEncoder(
        num_layers=layers,
        layer_cfg={
            "self_attn_cfg": {**attention, "num_levels": 2, "num_points": 2, "dropout": 0.0},
            "ffn_cfg": {"embed_dims": DIMS, "feedforward_channels": 32},
        },
        text_layer_cfg={
            "self_attn_cfg": attention,
            "ffn_cfg": {"embed_dims": DIMS, "feedforward_channels": 24},
        },
        fusion_layer_cfg={
            "v_dim": DIMS,
            "l_dim": DIMS,
            "embed_dim": 32,
            "num_heads": HEADS,
            "init_values": 1.0,
        },
        **changes,
    )
    for parameter in made.parameters():  # offsets and attention weights start as zero
        torch.nn.init.normal_(parameter, std=0.3)
    return made.eval()


def one_image(pyramid: FeaturePyramid, image: int, shapes) -> FeaturePyramid:
    """The valid part of one image as a batch of its own; level embeddings are in ``pos``."""
    rows = []
    start = 0
    for (padded_height, padded_width), (height, width) in zip(pyramid.shapes, shapes, strict=True):
        grid = torch.arange(padded_height * padded_width).view(padded_height, padded_width)
        rows.append(start + grid[:height, :width].flatten())
        start += padded_height * padded_width
    kept = torch.cat(rows)
    return FeaturePyramid(
        feat=pyramid.feat[image : image + 1, kept],
        pos=pyramid.pos[image : image + 1, kept],
        padding_mask=None,
        shapes=tuple(shapes),
        spatial_shapes=torch.tensor(shapes),
        level_start_index=torch.tensor([0, shapes[0][0] * shapes[0][1]]),
        valid_ratios=torch.ones(1, len(shapes), 2),
    ), kept


def one_text(text, image, length):
    return dataclasses.replace(
        text,
        embedded=text.embedded[image : image + 1, :length],
        token_mask=text.token_mask[image : image + 1, :length],
        position_ids=text.position_ids[image : image + 1, :length],
        attention_mask=text.attention_mask[image : image + 1, :length, :length],
    )


def test_padding_of_image_and_text_changes_no_image_of_a_batch(pyramid_of, text_of):
    valid = [[(6, 8), (4, 6)], [(3, 4), (2, 3)]]
    pyramid, text, lengths = pyramid_of(valid=valid), text_of((5, 3)), (5, 3)
    model = encoder()
    together = model(pyramid, text)
    for image in (0, 1):
        alone, kept = one_image(pyramid, image, [level[image] for level in valid])
        found = model(alone, one_text(text, image, lengths[image]))
        torch.testing.assert_close(together.memory[image, kept], found.memory[0])
        torch.testing.assert_close(
            together.text.embedded[image, : lengths[image]], found.text.embedded[0]
        )


def test_each_layer_fuses_then_reads_text_then_reads_the_image(pyramid_of, text_of):
    pyramid, text, model = pyramid_of(), text_of((4, 4)), encoder()
    visual, language = pyramid.feat, text.embedded
    position = encode_text_positions(text.position_ids, DIMS)
    blocked = torch.stack([~mask for mask in text.attention_mask for _ in range(HEADS)])
    references = pixel_centres(pyramid)[:, :, None].expand(-1, -1, 2, -1)
    for fuse, read_text, read_image in zip(
        model.fusion_layers, model.text_layers, model.layers, strict=True
    ):
        visual, language = fuse(visual, language, None, ~text.token_mask)
        language = read_text(language, position, blocked)
        visual = read_image(visual, references, pyramid)
    encoded = model(pyramid, text)
    torch.testing.assert_close(encoded.memory, visual)
    torch.testing.assert_close(encoded.text.embedded, language)


def test_tokens_read_only_their_phrase_where_the_image_tells_them_nothing(pyramid_of, text_of):
    model = encoder(layers=1)
    torch.nn.init.zeros_(model.fusion_layers[0].gamma_l)
    pyramid, text = pyramid_of(), text_of((6, 6))
    changed = text.embedded.clone()
    changed[:, 4:] += torch.randn(2, 2, DIMS)  # the last of three phrases
    before = model(pyramid, text).text.embedded
    after = model(pyramid, dataclasses.replace(text, embedded=changed)).text.embedded
    torch.testing.assert_close(after[:, :4], before[:, :4])
    assert (after[:, 4:] - before[:, 4:]).abs().max() > 0.1


def test_the_original_mixes_up_the_masks_of_a_batch_only_where_asked_for(pyramid_of, text_of):
    pyramid, text = pyramid_of(), text_of((6, 4))
    torch.manual_seed(1)
    plain = encoder()
    torch.manual_seed(1)
    quirky = encoder(quirks=Quirks(head_major_text_mask=True))
    difference = plain(pyramid, text).text.embedded - quirky(pyramid, text).text.embedded
    assert difference[text.token_mask].abs().max() > 1e-3


@pytest.mark.parametrize("layers", [1, 2])
def test_recomputed_layers_give_the_same_gradients(pyramid_of, text_of, layers):
    pyramid, text = pyramid_of(), text_of()
    gradients = []
    for number in (-1, layers):
        torch.manual_seed(0)
        model = encoder(num_cp=number)
        encoded = model(pyramid, text)
        (encoded.memory.square().mean() + encoded.text.embedded.square().mean()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=lambda m, n=name: n + m)


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of tensors that exist at the same time, of those made inside it."""

    now = peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        given = {id(a.untyped_storage()) for a in args if isinstance(a, torch.Tensor)}
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if not isinstance(tensor, torch.Tensor):
                continue
            storage = tensor.untyped_storage()
            if id(storage) not in given and not hasattr(storage, "counted"):
                storage.counted = True
                self._add(storage.nbytes())
                weakref.finalize(storage, self._add, -storage.nbytes())
        return out

    def _add(self, number):
        self.now += number
        self.peak = max(self.peak, self.now)


def real_widths():
    """One layer of the released sizes."""
    attention = {"embed_dims": 256, "num_levels": 4, "dropout": 0.0}
    return GroundingDINOEncoder(
        num_layers=1,
        layer_cfg={
            "self_attn_cfg": attention,
            "ffn_cfg": {"embed_dims": 256, "feedforward_channels": 2048},
        },
        text_layer_cfg={"self_attn_cfg": {"num_heads": 4}, "ffn_cfg": {}},
        fusion_layer_cfg={},
    ).eval()


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("tokens", [40, 256])
@pytest.mark.parametrize("implementation", ["triton", "grid_sample"])
def test_as_much_is_held_per_pixel_as_the_encoder_says(
    pyramid_of, text_of, implementation, tokens, padded, monkeypatch
):
    monkeypatch.setattr("llmdet.ops.deformable_attention._HAS_TRITON", True)
    shapes, dims = [(100, 167), (50, 84), (25, 42), (13, 21)], 256
    valid = [[shape, (shape[0] - padded, shape[1])] for shape in shapes]
    mode = FakeTensorMode(allow_non_fake_inputs=True)  # sizes are counted, nothing is computed
    model = to_fake_device(real_widths(), mode)
    with mode, torch.no_grad():
        pyramid = to_cuda(pyramid_of(shapes, batch=2, dims=dims, valid=valid))
        text = to_cuda(text_of((tokens, tokens), dims=dims))
        with LiveMemory() as memory, use_implementation(implementation):
            model(pyramid.of([1, 0]), text)
    held = memory.peak / 4 / (2 * sum(h * w for h, w in shapes))
    floats = model.floats_per_pixel(tokens, padded)
    assert 0.9 * floats < held < 1.05 * floats  # beside pixels, the tokens themselves


def to_cuda(features):
    tensors = {k: v.to("cuda") for k, v in vars(features).items() if isinstance(v, torch.Tensor)}
    return dataclasses.replace(features, **tensors)

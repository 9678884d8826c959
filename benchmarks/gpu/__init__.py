"""Ten minutes on one GPU: what a training episode costs, where it waits, what would move it.

    python -m benchmarks.gpu                                  all parts, in order of worth, within 8.8 minutes
    python -m benchmarks.gpu --parts step fed --minutes 5     some of them
    python -m benchmarks.gpu --device cpu --quick             a little of all that a CPU can do: does it run?

| part | what it measures | what it decides |
|---|---|---|
| `ceilings` | bandwidth, arithmetic, the cost of a launch and of a synchronisation | the model's constants |
| `right` | gradients against float64 by precision; the same bits twice | is the GPU path right |
| `head` | `eigh` by size and backend, Cholesky, the Mahalanobis head | is `eigh` worth replacing |
| `step` | an episode in memory by chunk and precision: time, kernels, synchronisations, memory | the defaults |
| `fed` | train.py's steps fed by the loader, and the same episodes from memory | does the loader keep up |
| `decode` | JPEG by libjpeg-turbo, torchvision and nvImageCodec | which decoder |
| `race` | pixels of DALI whose copies are late | are they right |
| `compiled` | an episode with --compile | is it worth its minutes |

Nothing is downloaded: weights are random, images drawn. Each part has a time budget and hands what it leaves to the
next; rows are on disk as they come (`--out FILE`, JSON, and a Markdown table of the same name for RESULTS.md), so a
machine that is taken away leaves what was measured. The model's prediction (`benchmarks.gpu.model`) stands beside
each figure. What cannot run is listed with the reason.

A machine without network needs torch, timm, safetensors, pyarrow, Pillow, rich and tqdm, and the wheels of the rest,
fetched beforehand for its Python (here 3.12 on Linux, 1 MB) and installed there, without touching its torch:

    pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \\
        --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \\
        -d wheels msgspec simplejpeg google-crc32c isal
    python3 -m pip install --no-index --no-deps --target site wheels/*.whl
    PYTHONPATH=site:. python3 -m benchmarks.gpu --out gpu.json

Without msgspec only `ceilings` runs, without simplejpeg and google-crc32c neither `fed` nor `decode`. nvidia-ml-py adds
utilisation and power, nvidia-nvimgcodec-cu13 (25 MB) and nvidia-nvjpeg (4 MB) the engines' rows of `decode`, nvidia-dali-cuda130
(200 MB) the part `race`.
"""

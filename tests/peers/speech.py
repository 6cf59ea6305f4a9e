#!/usr/bin/env python3
"""speech.py - sound files and log-mel features against soundfile, SciPy and transformers.

Two dozen files of all sorts are written; each is read, mixed down, resampled and turned into features
by mbuyu (tests/peers/features.c) and by the peers. Features within 1e-4 of WhisperFeatureExtractor's in
both of its forms, for 80 and 128 bins: PyTorch's works in float32, NumPy's in float64, as ours, and is
met more closely. On some processors PyTorch's is further than 1e-4 from NumPy's, and so from ours.
"""
import os
import subprocess
import sys
import tempfile

import numpy as np
import scipy.signal
import soundfile
from transformers import WhisperFeatureExtractor

HELPER = os.path.join(os.environ["MB_BUILD"], "tests", "features")
RATE = 16000


def tone(rate, seconds, hz=440.0, size=0.5):
    return size * np.sin(2 * np.pi * hz * np.arange(int(rate * seconds)) / rate)


def speechlike(rate, seconds, seed):
    """Noise in moving bands below 3 kHz, with pauses."""
    rng = np.random.default_rng(seed)
    n = int(rate * seconds)
    t = np.arange(n) / rate
    voice = sum(np.sin(2 * np.pi * (f * t + 20 * np.sin(2 * np.pi * r * t)) + p) / (k + 1)
                for k, (f, r, p) in enumerate(zip(rng.uniform(90, 2800, 9), rng.uniform(0.3, 3, 9),
                                                  rng.uniform(0, 6, 9))))
    return 0.2 * voice * np.clip(np.sin(2 * np.pi * 1.3 * t) + 0.4, 0, 1)


def make(folder):
    rng = np.random.default_rng(0)
    stereo = lambda rate, s: np.stack([speechlike(rate, s, 1), speechlike(rate, s, 2)], 1)
    kinds = [
        ("plain.wav", speechlike(RATE, 3, 0), RATE, "PCM_16"),
        ("telephone.wav", speechlike(8000, 3, 0), 8000, "PCM_16"),
        ("law.wav", speechlike(8000, 2, 3), 8000, "ULAW"),
        ("stereo.wav", stereo(44100, 2.5), 44100, "PCM_16"),
        ("espeak_rate.wav", speechlike(22050, 2, 4), 22050, "PCM_16"),
        ("deep.wav", speechlike(48000, 2, 5), 48000, "PCM_24"),
        ("deeper.wav", speechlike(96000, 1, 5), 96000, "PCM_32"),
        ("real.wav", speechlike(RATE, 2, 6), RATE, "FLOAT"),
        ("double.wav", speechlike(RATE, 2, 6), RATE, "DOUBLE"),
        ("bytes.wav", speechlike(RATE, 2, 7), RATE, "PCM_U8"),
        ("silence.wav", np.zeros(RATE), RATE, "PCM_16"),
        ("one_sample.wav", np.array([0.25]), RATE, "PCM_16"),
        ("too_long.wav", speechlike(RATE, 35, 8), RATE, "PCM_16"),
        ("exactly.wav", speechlike(RATE, 30, 9), RATE, "PCM_16"),
        ("nearly.wav", speechlike(RATE, 29.995, 9), RATE, "PCM_16"),
        ("click.wav", np.eye(1, RATE, 5000)[0], RATE, "PCM_16"),
        ("square.wav", np.sign(tone(RATE, 1)), RATE, "PCM_16"),
        ("noise.wav", rng.uniform(-1, 1, RATE), RATE, "PCM_16"),
        ("faint.wav", 1e-3 * rng.uniform(-1, 1, RATE), RATE, "PCM_16"),
        ("constant.wav", np.full(RATE, 0.3), RATE, "PCM_16"),
        ("chirp.wav", scipy.signal.chirp(np.arange(RATE) / RATE, 0, 1, 8000), RATE, "PCM_16"),
        ("plain.flac", speechlike(RATE, 3, 10), RATE, "PCM_16"),
        ("deep.flac", stereo(48000, 2), 48000, "PCM_24"),
        ("vorbis.ogg", stereo(44100, 2), 44100, "VORBIS"),
        ("opus.ogg", speechlike(48000, 2, 11), 48000, "OPUS"),
        ("third_layer.mp3", speechlike(44100, 2, 12), 44100, "MPEG_LAYER_III"),
        ("plain.aiff", speechlike(RATE, 1, 13), RATE, "PCM_16"),
    ]
    for name, x, rate, subtype in kinds:
        path = os.path.join(folder, name)
        if name.endswith(".ogg") or name.endswith(".mp3"):  # in pieces: libsndfile's encoders are deep
            with soundfile.SoundFile(path, "w", rate, 1 if x.ndim == 1 else 2, subtype) as f:
                for at in range(0, len(x), 4096):
                    f.write(x[at:at + 4096])
        else:
            soundfile.write(path, x, rate, subtype=subtype)
    return [k[0] for k in kinds]


def run(bins, frames, folder, files):
    out = os.path.join(folder, f"out{bins}-{frames}")
    os.mkdir(out)
    subprocess.run([HELPER, str(bins), str(frames), out] + files, check=True)
    return [(np.fromfile(f"{out}/{i}.samples", np.float32),
             np.fromfile(f"{out}/{i}.mel", np.float32).reshape(frames, bins))
            for i in range(len(files))]


def compare(name, extractor, x, mel, worst):
    """The differences from both forms; True if one is too large."""
    n = extractor.n_samples
    torchs = extractor(x, sampling_rate=RATE, return_tensors="np").input_features[0]
    padded = np.pad(x[:n], (0, max(0, n - len(x))))[None]
    numpys = extractor._np_extract_fbank_features(padded, "cpu")[0]
    bad = False
    apart = np.abs(torchs - numpys).max()
    worst["PyTorch's from NumPy"] = max(worst.get("PyTorch's from NumPy", 0.0), apart)
    for form, ref, bound in (("PyTorch", torchs, max(1e-4, apart + 1e-5)), ("NumPy", numpys, 1e-5)):
        error = np.abs(ref.T - mel).max()
        worst[form] = max(worst.get(form, 0.0), error)
        if not error <= bound:
            print(f"{name}: {mel.shape[1]} bins: features differ from {form}'s by {error:g}")
            bad = True
    return bad


def main():
    failures = 0
    worst = {}
    with tempfile.TemporaryDirectory() as folder:
        names = make(folder)
        files = [os.path.join(folder, n) for n in names]
        worst_sample = worst_rate = 0.0
        for bins in (80, 128):
            extractor = WhisperFeatureExtractor(feature_size=bins)
            for name, path, (x, mel) in zip(names, files, run(bins, 3000, folder, files)):
                theirs, rate = soundfile.read(path, dtype="float32", always_2d=True)
                theirs = theirs.mean(1)
                if rate == RATE:
                    error = np.abs(x - theirs).max() if len(x) == len(theirs) else np.inf
                    worst_sample = max(worst_sample, error)
                    bad = error > 1e-7
                else:  # another filter than ours: they agree where neither has its edge
                    up = np.gcd(rate, RATE)
                    theirs = scipy.signal.resample_poly(theirs, RATE // up, rate // up,
                                                        window=("kaiser", 14.0))
                    n = min(len(x), len(theirs))
                    error = np.abs(x[400:n - 400] - theirs[400:n - 400]).max()
                    worst_rate = max(worst_rate, error)
                    bad = error > 3e-3 or abs(len(x) - len(theirs)) > 1
                if bad:
                    print(f"{name}: samples differ by {error:g}, {len(x)} against {len(theirs)}")
                    failures += 1
                failures += compare(name, extractor, x, mel, worst)
        # a shorter window: the clip padded to 10 s
        extractor = WhisperFeatureExtractor(chunk_length=10)
        for name, (x, mel) in zip(names, run(80, 1000, folder, files)):
            failures += compare(name, extractor, x, mel, worst)
    apart = worst.pop("PyTorch's from NumPy")
    print(f"{len(names)} files: samples within {worst_sample:.1e}, resampled ones within "
          f"{worst_rate:.1e} of SciPy's, features within "
          + ", ".join(f"{e:.1e} of {form}'s" for form, e in worst.items())
          + f"; these two are {apart:.1e} apart")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())

"""DSIR's weights against plain counting."""

from collections import Counter

import numpy as np

from dsel.selector import dsir
from dsel.words import words_and_signs

POOL = ["the cat sat on the mat .", "two plus two is four", "what is two plus three ?", "", "the the the"]
TARGETS = ["what is four plus two ?", "two plus two"]


def grams(text):
    words = words_and_signs(text.lower())
    return words + [" ".join(pair) for pair in zip(words, words[1:], strict=False)]


def test_weights_are_log_ratios_of_bags_of_n_grams():
    found = dsir.log_weights(POOL, TARGETS, buckets=10**7)  # so many that none is shared
    raw, wanted = (Counter(g for text in texts for g in grams(text)) for texts in (POOL, TARGETS))
    expected = [
        sum(
            np.log(wanted[g] / sum(wanted.values()) + 1e-8) - np.log(raw[g] / sum(raw.values()) + 1e-8)
            for g in grams(text)
        )
        for text in POOL
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def test_few_buckets_are_shared():
    found = dsir.log_weights(POOL, TARGETS, buckets=1)
    np.testing.assert_allclose(found, 0, atol=1e-6)


def test_smoothed_targets_have_each_bucket_a_little():
    buckets, smoothing = 10**4, 0.5
    found = dsir.log_weights(POOL, TARGETS, buckets=buckets, smoothing=smoothing)
    raw, wanted = (Counter(g for text in texts for g in grams(text)) for texts in (POOL, TARGETS))
    whole = sum(wanted.values()) + smoothing * buckets
    expected = [
        sum(
            np.log((wanted[g] + smoothing) / whole + 1e-8) - np.log(raw[g] / sum(raw.values()) + 1e-8)
            for g in grams(text)
        )
        for text in POOL
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-9)

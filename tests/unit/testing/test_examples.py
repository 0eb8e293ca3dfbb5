"""The examples for users who test their own code run as they are written."""

import doctest

import lightning_watt.testing


def test_the_examples_run():
    result = doctest.testmod(lightning_watt.testing)
    assert result.attempted >= 10
    assert result.failed == 0

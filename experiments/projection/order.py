"""In which order candidates come in each round, so that none is early or late, or comes after the same other, more often."""


def counterbalanced(count: int, round_number: int) -> list[int]:
    """The order of a round.

    Each odd round is the one before it backwards, so after two rounds every candidate has come as early as late, and what
    rises evenly with time is in all of them alike. After `count` rounds (twice as many if `count` is odd) each has been once
    (twice) at every place, and as often directly after each of the others (Williams, "Experimental designs balanced for the
    estimation of residual effects of treatments", 1949).

    Args:
        count: how many candidates there are.
        round_number: which round, from 0.

    Returns:
        The candidates' numbers, first come first.

    Example:
        >>> [counterbalanced(4, round_number) for round_number in range(4)]
        [[0, 1, 3, 2], [2, 3, 1, 0], [1, 2, 0, 3], [3, 0, 2, 1]]
    """
    zigzag = [place // 2 + 1 if place % 2 else -place // 2 for place in range(count)]
    order = [(number + round_number // 2) % count for number in zigzag]
    return order[::-1] if round_number % 2 else order

"""The checking cell of an exercise."""

import math


def check(got, expected, hint: str) -> None:
    """Print whether ``got`` equals ``expected`` (numbers: to 1e-6); ``hint`` is shown if not."""
    if isinstance(expected, float):
        good = isinstance(got, (int, float)) and math.isclose(got, expected, rel_tol=1e-6, abs_tol=1e-9)
    else:
        good = got == expected
    print("✅ 通过" if good else f"❌ 还没有通过：得到 {got!r}。提示：{hint}")

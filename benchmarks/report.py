"""One figure and one table from benchmarks/results/*.json, written into both READMEs between the bench marks."""

import json

from benchmarks.common import RESULTS, ROOT
from benchmarks.race import LABELS

FIGURE = ROOT / "benchmarks" / "figures" / "bench.png"
START, END = "<!-- bench:start -->", "<!-- bench:end -->"
CHINESE = {
    "slides": "幻灯片的代码，今天的库",
    "slides_2024": "幻灯片的代码，当时的库",
    "trl": "TRL SFTTrainer，默认设置",
    "llamafactory": "LLaMA-Factory 0.9.5",
    "course": "本课程 7.6",
}
HEADS = {
    "README.md": (
        "s to the slides' final loss",
        "s in all",
        "tokens/s",
        "peak MiB",
        "final held-out loss",
        "not reached",
    ),
    "README.zh-CN.md": ("达到幻灯片最终损失的秒数", "总秒数", "词元/秒", "内存峰值 MiB", "最终留出损失", "没有达到"),
}
# what the course set out to reach: its median divided by the other's
GOALS = {"slides": dict(to_target=0.2, peak_mib=0.5), "trl": dict(to_target=0.4), "llamafactory": dict(to_target=0.6)}
GOALS["llamafactory"] |= dict(peak_mib=1.0)
GOAL_HEADS = {
    "README.md": ("the course divided by", "time to that loss", "peak memory", "goal", "the other never reaches it"),
    "README.zh-CN.md": ("本课程除以", "达到该损失的时间", "内存峰值", "目标", "对方没有达到"),
}
LIMITS = {
    "README.md": (
        "A step of 7.6 ({tokens:.0f} tokens) takes {seconds:.2f} s. {share:.0%} of its CPU time is matrix products; at the "
        "best throughput measured on this machine ({gflops:.0f} GFLOP/s) they alone would take {limit:.2f} s."
    ),
    "README.zh-CN.md": (
        "7.6 的一步（{tokens:.0f} 个词元）用 {seconds:.2f} 秒，其中 {share:.0%} 的 CPU 时间是矩阵乘法；"
        "按这台机器上测到的最高速度（{gflops:.0f} GFLOP/s），只做这些乘法要 {limit:.2f} 秒。"
    ),
}
TRADES = {
    "README.md": (
        "Activation checkpointing trades time for memory: {on[peak_mib]:.0f} instead of {off[peak_mib]:.0f} MiB and "
        "{on[tokens_per_second]:.0f} instead of {off[tokens_per_second]:.0f} tokens/s in a short run; the course leaves it "
        "off on a CPU."
    ),
    "README.zh-CN.md": (
        "激活检查点（activation checkpointing）用时间换内存：短跑中 {on[peak_mib]:.0f} MiB 对 {off[peak_mib]:.0f} MiB，"
        "{on[tokens_per_second]:.0f} 词元/秒对 {off[tokens_per_second]:.0f} 词元/秒；在 CPU 上本课程不开它。"
    ),
}
LATER = {
    "README.md": "Measured afterwards by itself, not in turn with the others: {names}.",
    "README.zh-CN.md": "之后单独重新测量、没有与其他各家轮流的：{names}。",
}
SENTENCES = {
    "README.md": (
        "Measured {date}: {cpu}, {cores} cores, {threads} threads, {rows} training rows ({tokens} tokens, {supervised} of "
        "the doctor), {held_out} held-out rows, {rounds} round(s); median [lowest, highest]. `make bench` measures, "
        "`python -m benchmarks.report` writes this part from `benchmarks/results/`."
    ),
    "README.zh-CN.md": (
        "{date} 测量：{cpu}，{cores} 核，{threads} 线程，训练 {rows} 条（{tokens} 个词元，其中医生的 {supervised} 个），"
        "留出 {held_out} 条，{rounds} 轮；中位数 [最小, 最大]。`make bench` 测量，"
        "`python -m benchmarks.report` 按 `benchmarks/results/` 写出这一段。"
    ),
}


def cell(values: list[float] | None, digits: int, missing: str = "–") -> str:
    """Return "median [lowest, highest]" of a summary entry, or ``missing`` for None."""
    return missing if values is None else "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*values, d=digits)


def goal_table(race: dict, readme: str) -> list[str]:
    """Return the lines of the table of the course's ratios, each with its goal where there is one."""
    labels = LABELS if readme == "README.md" else CHINESE
    against, *heads, goal, missing = GOAL_HEADS[readme]
    lines = [f"| {against} | {' | '.join(heads)} |", "|---" * 3 + "|"]
    for name, own in ratios(race).items():
        cells = []
        for key in ("to_target", "peak_mib"):
            wanted = GOALS.get(name, {}).get(key)
            nothing = missing if race["summary"]["course"][key] else "–"
            cells.append(f"{own[key]:.2f}" if key in own else nothing)
            cells[-1] += f" ({goal} ≤ {wanted:g})" if wanted else ""
        lines.append(f"| {labels[name]} | {' | '.join(cells)} |")
    return lines


def limit(profile: dict, readme: str) -> str:
    """Return the sentence on where a step of 7.6 spends its time and what the machine's throughput allows."""
    own = next(result for result in profile["results"] if result["loss"] == "7.6")
    steps = len(own["step_seconds"])
    return LIMITS[readme].format(
        tokens=sum(own["tokens"]) / steps,
        seconds=sum(own["step_seconds"]) / steps,
        share=own["matrix_share"],
        gflops=max(own["gflops"].values()),
        limit=own["limit_seconds"] / steps,
    )


def trade(ablation: dict, readme: str) -> str:
    """Return the sentence on what activation checkpointing would save and cost, from the ablation.

    Raises ValueError when the ablation was run with --only and lacks that variant.
    """
    results, variant = ablation["results"], "activation checkpointing on"
    if variant not in results:
        raise ValueError(f"benchmarks/results/ablation.json has no {variant!r}: run benchmarks.ablation without --only")
    return TRADES[readme].format(off=results[ablation["base"]], on=results[variant])


def table(race: dict, profile: dict | None, ablation: dict | None, readme: str) -> str:
    """Return the Markdown of one README: a sentence about the measurement, the table, goals and limit, the figure."""
    *heads, missing = HEADS[readme]
    labels = LABELS if readme == "README.md" else CHINESE
    seeds = {run["seed"] for run in race["runs"]}
    dates = {run.get("date", race["date"]) for run in race["runs"]}
    facts = race["settings"] | race["machine"] | dict(date=", ".join(sorted(dates)), rounds=len(seeds))
    names = [labels[name] for name in race.get("afterwards", [])]
    sentence = " ".join(
        [SENTENCES[readme].format(**facts)] + [LATER[readme].format(names=", ".join(names))] * bool(names)
    )
    lines = [sentence, "", f"| | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for name, label in labels.items():
        if name in race["summary"]:
            own = race["summary"][name]
            cells = [cell(own["to_target"], 0, missing)]
            cells += [cell(own[key], digits) for key, digits in (("seconds", 0), ("tokens_per_second", 0))]
            cells += [cell(own[key], digits) for key, digits in (("peak_mib", 0), ("final_loss", 3))]
            lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", *goal_table(race, readme)] if "course" in race["summary"] else []
    lines += ["", limit(profile, readme)] if profile else []
    lines += ["", trade(ablation, readme)] if ablation else []
    return "\n".join([*lines, "", f"![benchmark]({FIGURE.relative_to(ROOT).as_posix()})"])


def insert(text: str, part: str, name: str) -> str:
    """Return ``text`` with ``part`` between the two marks. Raises ValueError when the marks are not there once."""
    if text.count(START) != 1 or text.count(END) != 1:
        raise ValueError(f"{name}: the marks {START} and {END} must each stand there once")
    before, rest = text.split(START)
    return f"{before}{START}\n{part}\n{END}{rest.split(END)[1]}"


def figure(race: dict, ablation: dict | None, path):
    """Draw held-out loss against time (every run), peak memory, and the ablation's tokens/s if there is one."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels, axes = plt.subplots(1, 3 if ablation else 2, figsize=(15 if ablation else 10, 4.5))
    colours = {name: f"C{i}" for i, name in enumerate(LABELS)}
    for run in race["runs"]:
        label = LABELS[run["contestant"]] if run["seed"] == race["runs"][0]["seed"] else None
        axes[0].plot(
            *zip(*run["points"], strict=True), "-o", color=colours[run["contestant"]], markersize=3, label=label
        )
    axes[0].set(xlabel="seconds since the process started", ylabel="held-out loss (nats per doctor's token)")
    axes[0].legend(fontsize=8)
    names = [name for name in LABELS if name in race["summary"]]
    memory = [race["summary"][name]["peak_mib"][0] / 1024 for name in names]
    axes[1].barh(names, memory, color=[colours[name] for name in names])
    axes[1].set(xlabel="peak memory of the process tree (GiB)")
    axes[1].invert_yaxis()
    if ablation:
        base = ablation["results"][ablation["base"]]["tokens_per_second"]
        shown = {
            n: r["tokens_per_second"] / base for n, r in ablation["results"].items() if not r["settings"].get("learn")
        }
        axes[2].barh(list(shown), list(shown.values()), color="C7")
        axes[2].axvline(1, color="black", linewidth=1)
        axes[2].set(xlabel=f"tokens/s, {ablation['base']} = 1")
        axes[2].tick_params(axis="y", labelsize=7)
        axes[2].invert_yaxis()
    panels.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    panels.savefig(path, dpi=110)
    plt.close(panels)


def read(name: str) -> dict | None:
    """Return benchmarks/results/<name>.json, None when it was not measured."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def ratios(race: dict) -> dict[str, dict[str, float]]:
    """Return, for every other contestant, the course's median time to the target and peak memory over theirs."""
    course = race["summary"]["course"]
    return {
        name: {key: course[key][0] / own[key][0] for key in ("to_target", "peak_mib") if course[key] and own[key]}
        for name, own in race["summary"].items()
        if name != "course"
    }


if __name__ == "__main__":
    race = read("race")
    if race is None:
        raise SystemExit("benchmarks/results/race.json is missing: run `make bench` first")
    profile, ablation = read("profile"), read("ablation")
    figure(race, ablation, FIGURE)
    for readme in HEADS:
        text = (ROOT / readme).read_text(encoding="utf-8")
        (ROOT / readme).write_text(insert(text, table(race, profile, ablation, readme), readme), encoding="utf-8")
    print(f"wrote {FIGURE.relative_to(ROOT)} and the bench part of both READMEs")

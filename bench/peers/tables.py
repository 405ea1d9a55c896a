"""The tables that compare.py prints."""

import statistics

# Bytes of a number in a cache, scales included: q8_0 has one for 32 numbers, ours one for a row.
BYTES = {"f32": 4.0, "bf16": 2.0, "f16": 2.0, "q8_0": 34 / 32, "int8": 1 + 4 / 128}


def print_table(head, rows):
    """The first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:])]
        print("  ".join(cells).rstrip())


def print_attention(attention):
    for case in attention["cases"]:
        probe = statistics.median(case["read_gigabytes_per_second"])
        print(
            f"\nAttention alone, {case['heads']}, {case['slots']} slots, one query; "
            f"plain reads {probe:.1f} GB/s; vs: times as fast as llama.cpp's best setting"
        )
        for row in case["results"]:
            row["median"] = statistics.median(row["milliseconds_per_layer"])
        print_table(
            ["", "huge pages", "ms a layer", "GB/s", "of reads", "vs same bits", "vs any"],
            [attention_cells(case, row, probe) for row in case["results"]],
        )


def attention_cells(case, row, probe):
    rate = case["numbers_per_layer"] * BYTES[row["format"]] / row["median"] / 1e6
    return [
        " ".join([row["program"], row["setting"], row["format"]]).replace("  ", " "),
        "yes" if row["huge_pages"] else "no",
        f"{row['median']:.2f}",
        f"{rate:.1f}",
        f"{rate / probe:.0%}",
        f"{best_of_llama(case, row, same_bits=True) / row['median']:.2f}x",
        f"{best_of_llama(case, row, same_bits=False) / row['median']:.2f}x",
    ]


def eight_bit(row):
    return BYTES[row["format"]] < 2


def best_of_llama(case, row, same_bits):
    """The least time of llama.cpp's settings, huge pages or not alike."""
    return min(
        other["median"]
        for other in case["results"]
        if other["program"] == "llama.cpp"
        and other["huge_pages"] == row["huge_pages"]
        and (not same_bits or eight_bit(other) == eight_bit(row))
    )


def print_end_to_end(weights, rows):
    """One line a program, one column a point, ratios to the best of the peer's settings there."""
    columns = list(dict.fromkeys((row["metric"], row["tokens"]) for row in rows))
    programs = list(dict.fromkeys(row["program"] for row in rows))
    medians = {
        (row["program"], row["metric"], row["tokens"]): statistics.median(row["rates"])
        for row in rows
        if row["rates"]
    }
    peers = {row["program"] for row in rows if row["peer"]}
    print(f"\nTokens a second, {weights} weights: medians; in brackets: times the best of llama.cpp")
    print_table(
        ["", *(f"{metric} {tokens}" for metric, tokens in columns)],
        [[name, *(rate_cell(medians, peers, name, column) for column in columns)] for name in programs],
    )


def rate_cell(medians, peers, program, column):
    rate = medians.get((program, *column))
    if rate is None:
        return "-"  # it failed, which was said then, or was interrupted
    best = max((medians.get((peer, *column), 0.0) for peer in peers), default=0.0)
    return f"{rate:.1f} ({rate / best:.2f}x)" if best else f"{rate:.1f}"

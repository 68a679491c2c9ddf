"""Holds the firings of cron expressions against croniter: check_cron.py PROGRAM [EXPRESSIONS [SEED]].

croniter is asked for civil times, which Python's own zoneinfo then places, by the rules that EventBridge Scheduler
documents: a time that clocks are set forward over is skipped, one that they show twice counts once, the first time
(https://docs.aws.amazon.com/scheduler/latest/UserGuide/schedule-types.html). Where clocks aren't set between the first and
the last firing, croniter is asked for the zone's times too, its own rules for clocks notwithstanding.

What EventBridge Scheduler is told is read back by AWS's page, and has to name the same minutes, hours, days and months.
"""

import json
import random
import subprocess
import sys
import zoneinfo
from collections import Counter
from datetime import UTC, datetime, timedelta

from croniter import croniter

FIRINGS = 10
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()
WEEKDAYS = "sun mon tue wed thu fri sat".split()


def main():
    program, *arguments = sys.argv[1:]
    wanted = int(arguments[0]) if arguments else 6000
    seed = int(arguments[1]) if arguments[1:] else 2026
    zoneinfo.reset_tzpath([])
    chance = random.Random(seed)
    zones = sorted(zoneinfo.available_timezones() - {"Factory", "localtime"})
    asked = [ask(chance, chance.choice(zones)) for _ in range(wanted)]
    lines = "".join(json.dumps(question) + "\n" for question in asked)
    answers = subprocess.run([program], input=lines, capture_output=True, text=True, check=True).stdout.splitlines()
    counts, faults = Counter(), []
    for question, line in zip(asked, answers, strict=True):
        fault = check(question, json.loads(line), counts)
        if fault:
            faults.append(f"{json.dumps(question)}: {fault}")
    print(f"{wanted} expressions (seed {seed}) in {len({question['timezone'] for question in asked})} zones:")
    for what, count in sorted(counts.items()):
        print(f"{count:8} {what}")
    for fault in faults[:20]:
        print(fault, file=sys.stderr)
    if faults:
        sys.exit(f"{len(faults)} expressions differ")


def ask(chance, name):
    """An expression that is taken, a zone, and a time; every other time just before clocks are set there."""
    zone = zoneinfo.ZoneInfo(name)
    after = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(seconds=chance.randrange(10 * 365 * 86_400))
    setting = next_setting(zone, after) if chance.random() < 0.5 else None
    if setting:
        after = setting - timedelta(seconds=chance.randrange(2 * 86_400))
    near = setting.astimezone(zone).hour if setting else None
    minute, hour = field(chance, 0, 59), field(chance, 0, 23)
    if near is not None and chance.random() < 0.7:
        minute = chance.choice([minute, "*/15", "0,30", "15-45/5"])
        hour = chance.choice(["*", str((near + chance.choice([-1, 0])) % 24), ",".join(str((near + hours) % 24) for hours in (-1, 0, 1))])
    day = month = weekday = "*"
    match chance.randrange(4):
        case 0:
            day, month = field(chance, 1, 28), field(chance, 1, 12, MONTHS)
        case 1:
            weekday, month = field(chance, 0, 7, WEEKDAYS), field(chance, 1, 12, MONTHS)
        case 2:
            weekday = field(chance, 0, 7, WEEKDAYS)
    cron = f"{minute} {hour} {day} {month} {weekday}"
    if chance.random() < 0.02:
        cron = chance.choice(["@hourly", "@daily", "@weekly", "@monthly", "@yearly", "59 23 31 * *", "0 0 29 2 *"])
    return {"cron": cron, "timezone": name, "after": after.isoformat().replace("+00:00", "Z")}


def field(chance, first, last, names=()):
    """A field: `*`, or a list of numbers, ranges and steps."""
    highest = 6 if last == 7 else last

    def part():
        low, high = sorted(chance.sample(range(first, last + 1), 2))
        match chance.randrange(6):
            case 0:
                return f"*/{chance.randint(1, highest - first)}"
            case 1:
                return f"{low}-{high}"
            case 2:
                return f"{low}-{high}/{chance.randint(1, high - low)}"
            case 3 if names:
                return names[(low - first) % len(names)]
            case _:
                return str(low)

    return "*" if chance.random() < 0.3 else ",".join(part() for _ in range(chance.choice([1, 1, 2, 3])))


def next_setting(zone, after):
    """When clocks are set there next, to the minute, if they are within a year."""
    for day in range(366):
        low = after + day * DAY
        if (low + DAY).astimezone(zone).utcoffset() != low.astimezone(zone).utcoffset():
            high = low + DAY
            while high - low > MINUTE:
                middle = low + (high - low) / 2
                same = middle.astimezone(zone).utcoffset() == low.astimezone(zone).utcoffset()
                low, high = (middle, high) if same else (low, middle)
            return high.replace(second=0, microsecond=0)
    return None


def check(question, answer, counts):
    if "refused" in answer:
        return f"refused: {answer['refused']}"
    counts["taken"] += 1
    zone, after = zoneinfo.ZoneInfo(question["timezone"]), datetime.fromisoformat(question["after"])
    told = [datetime.fromtimestamp(firing, UTC) for firing in answer["firings"]]
    expected, skipped, doubled = by_the_rules(question["cron"], zone, after)
    counts["firings"] += len(told)
    counts["civil times that are skipped"] += skipped
    counts["civil times that come twice, and fire once"] += doubled
    if told != expected:
        return f"fires at {[str(time) for time in told]} and not at {[str(time) for time in expected]}"
    if {after.astimezone(zone).utcoffset()} == {time.astimezone(zone).utcoffset() for time in told}:
        if not skipped and not doubled and next_setting(zone, after) is None:
            times = croniter(question["cron"], after.astimezone(zone), datetime)
            if told != [times.get_next().astimezone(UTC) for _ in range(FIRINGS)]:
                return "croniter's own times in the zone differ"
            counts["agree with croniter's own times in a zone whose clocks aren't set"] += 1
    theirs, ours = of_eventbridge(answer["eventbridge"]), of_croniter(question["cron"])
    if theirs != ours:
        return f"{answer['eventbridge']} means something else"
    counts["read back from EventBridge Scheduler's form"] += 1
    return None


def by_the_rules(cron, zone, after):
    """The next firings, and how many civil times on the way are skipped or come twice."""
    # Civil times of the day before may still be to come where clocks were set back.
    times = croniter(cron, after.astimezone(zone).replace(tzinfo=None) - DAY, datetime)
    found, skipped, doubled = [], 0, 0
    while len(found) < FIRINGS:
        civil = times.get_next()
        if civil.year > 9000:
            break
        first, second = (civil.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
        if first.astimezone(zone).replace(tzinfo=None) != civil:
            skipped += first > after
        elif first > after:
            doubled += first != second
            found.append(first)
    return sorted(found), skipped, doubled


def of_croniter(cron):
    minutes, hours, days, months, weekdays = croniter(cron).expanded[:5]

    def values(values, first, last):
        return set(range(first, last + 1)) if values == ["*"] else set(values)

    return (
        values(minutes, 0, 59),
        values(hours, 0, 23),
        values(days, 1, 31),
        values(months, 1, 12),
        {day % 7 for day in values(weekdays, 0, 6)},
    )


def of_eventbridge(expression):
    assert len(expression) <= 256, expression
    minutes, hours, days, months, weekdays, years = expression.removeprefix("cron(").removesuffix(")").split(" ")
    assert years == "*" and [days, weekdays].count("?") == 1, expression

    def values(text, first, last):
        if text in "*?":
            return set(range(first, last + 1))
        if "/" in text:
            begin, step = map(int, text.split("/"))
            return set(range(begin, last + 1, step))
        if "-" in text:
            begin, end = map(int, text.split("-"))
            return set(range(begin, end + 1))
        return set(map(int, text.split(",")))

    return (
        values(minutes, 0, 59),
        values(hours, 0, 23),
        values(days, 1, 31),
        values(months, 1, 12),
        {day - 1 for day in values(weekdays, 1, 7)},
    )


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Holds what reads the logs against the lines that are written. Needs nothing but Python; exits with 1 and says why.

- Every field of a line, from infra/sample-logs.jsonl and from the source's tracing macros, is in the index template.
- Every field that the template, the dashboards and the queries of docs/logs.md name is one that lines have.
- The dashboards are what infra/dashboards.py writes; their inner JSON parses, their references resolve.
- The function of infra/logs-to-opensearch.yaml ships lines, not metrics nor Lambda's own, and fails when refused.
"""
import base64
import contextlib
import gzip
import http.server
import json
import os
import pathlib
import re
import sys
import textwrap
import threading
import types

sys.dont_write_bytecode = True
import dashboards  # noqa: E402

INFRA = pathlib.Path(__file__).parent
ROOT = INFRA.parent
TOP = {"timestamp", "level", "message", "service", "component"}
IDS = {"user_id", "tenant_id", "workflow_id", "run_id", "trace_id"}
# Of Logs Insights: its fields begin with @, these are its words.
INSIGHTS_WORDS = set("""
    fields filter stats sort limit display parse dedup by as and or not like in asc desc ispresent
    count sum avg min max latest pct bin floor strcontains coalesce abs
""".split())
# Of the lines that Lambda itself writes.
PLATFORM_FIELDS = {"type", "record.metrics.initDurationMs"}
PLATFORM_LINE = {"time": "2026-11-21T05:20:17.867Z", "type": "platform.report", "record": {"status": "success"}}
METRIC_LINE = {"_aws": {"Timestamp": 1, "CloudWatchMetrics": []}, "service": "worker", "outcome": "failed", "runs": 1}

faults = []


def fault(text):
    faults.append(text)


def main():
    samples = [json.loads(line) for line in (INFRA / "sample-logs.jsonl").read_text().splitlines()]
    written = set().union(*(fields_of(line) for line in samples)) | TOP | IDS
    source, at_info = fields_in_source()
    real = written | source
    template = json.loads((INFRA / "opensearch" / "index-template.json").read_text())
    mapped = mapping(template["template"]["mappings"]["properties"])
    for field in sorted((written | at_info) - mapped.keys()):
        fault(f"the index template lacks {field}")
    for field in sorted(mapped.keys() - real):
        fault(f"the index template has {field}, which no line has")
    for line in samples:
        check_types(line, mapped)
    check_dashboards(mapped)
    check_queries(real)
    check_retention()
    check_shipping(samples)
    for text in faults:
        print(f"infra/check.py: {text}", file=sys.stderr)
    sys.exit(1 if faults else 0)


def fields_of(line):
    top = {name for name in line if name != "data"}
    return top | {f"data.{name}" for name in line.get("data", {})}


def fields_in_source():
    """The fields of all tracing macros, and of those that are written at the level info."""
    every, at_info = set(), set()
    for folder in ("functions", "shared", "local"):
        for file in sorted((ROOT / folder).rglob("*.rs")):
            if "tests" in file.parts:
                continue
            code = re.sub(r"(?m)^\s*//.*$", "", file.read_text()).split("#[cfg(test)]")[0]
            for found in re.finditer(r"\btracing::(\w+?)(_span)?!\(", code):
                names = set(map(qualified, argument_names(code, found.end())))
                every |= names
                if found[2] or found[1] in ("info", "warn", "error"):
                    at_info |= names
    if len(at_info) < 10:
        fault("the source's tracing macros were not found: has their form changed?")
    return every, at_info


def argument_names(code, start):
    """The field names among a macro's arguments: `name = …`, `%name`, `?name` or `name`."""
    depth, quoted, argument, arguments = 0, False, "", []
    for position, letter in enumerate(code[start:], start):
        if letter == '"' and code[position - 1] != "\\":
            quoted = not quoted
        elif not quoted and letter in "([{":
            depth += 1
        elif not quoted and letter in ")]}":
            depth -= 1
        if depth < 0 or (letter == "," and depth == 0 and not quoted):
            arguments.append(argument.strip())
            argument = ""
            if depth < 0:
                break
        else:
            argument += letter
    for argument in arguments:
        found = re.match(r"[%?]?(\w[\w.]*)\s*(=(?!=)|$)", argument)
        if found and not argument.startswith('"'):
            yield found[1]


def qualified(name):
    return name if name in TOP | IDS else f"data.{name}"


def mapping(properties, prefix=""):
    fields = {}
    for name, field in properties.items():
        if "properties" in field:
            fields |= mapping(field["properties"], f"{prefix}{name}.")
        else:
            fields[prefix + name] = field["type"]
    return fields


def check_types(line, mapped):
    values = {**line, **{f"data.{name}": value for name, value in line.get("data", {}).items()}}
    for name, value in values.items():
        kind = mapped.get(name)
        if kind == "double" and not (isinstance(value, (int, float)) and not isinstance(value, bool)):
            fault(f"{name} is mapped as a number, and a line has {value!r}")
        if kind in ("keyword", "text", "date") and isinstance(value, (dict, list)):
            fault(f"{name} is mapped as {kind}, and a line has {value!r}")


def check_dashboards(mapped):
    text = dashboards.TARGET.read_text()
    if text != dashboards.render():
        fault("dashboards.ndjson is not what infra/dashboards.py writes: run it")
    saved = [json.loads(line) for line in text.splitlines()]
    ids = {(each["type"], each["id"]) for each in saved}
    if len(ids) != len(saved):
        fault("two saved objects have one id")
    for each in saved:
        where, attributes = f"{each['type']} {each['id']}", each["attributes"]
        names = {reference["name"] for reference in each["references"]}
        for reference in each["references"]:
            if (reference["type"], reference["id"]) not in ids:
                fault(f"{where} refers to {reference['id']}, which is not there")
        if each["migrationVersion"].keys() != {each["type"]}:
            fault(f"{where} lacks the version of its form")
        source = json.loads(attributes.get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}"))
        if source.get("indexRefName", next(iter(names), None)) not in names | {None}:
            fault(f"{where} names a reference that it doesn't have")
        if each["type"] == "visualization":
            state = json.loads(attributes["visState"])
            check_order(where, state["aggs"])
            check_fields(where, mapped, state)
        if each["type"] == "dashboard":
            for panel in json.loads(attributes["panelsJSON"]):
                if panel["panelRefName"] not in names:
                    fault(f"{where} has a panel without a reference: {panel['panelRefName']}")
            json.loads(attributes["optionsJSON"])
        if each["type"] == "index-pattern" and mapped.get(attributes["timeFieldName"]) != "date":
            fault(f"{where}: {attributes['timeFieldName']} is no date")
        for column in attributes.get("columns", []):
            if column not in mapped:
                fault(f"{where} has the column {column}, which no line has")
        check_fields(where, mapped, source)


def check_order(where, aggregations):
    metrics = {each["id"]: each["type"] for each in aggregations if each["schema"] == "metric"}
    for each in aggregations:
        by = each["params"].get("orderBy", "_key")
        if by != "_key" and metrics.get(by) in (None, "percentiles"):
            fault(f"{where} is ordered by {by}, which is no single number")


def check_fields(where, mapped, value):
    """Walks JSON for fields of aggregations and of queries."""
    if isinstance(value, list):
        for each in value:
            check_fields(where, mapped, each)
    if not isinstance(value, dict):
        return
    if value.get("language") == "kuery":
        for name in re.findall(r"([\w.]+)\s*:", re.sub(r'"[^"]*"', '""', value["query"])):
            base = name.removesuffix(".keyword")
            if mapped.get(base) is None or (base == name) == (mapped[base] == "text"):
                fault(f"{where} asks for {name}, which is not mapped so that it can be asked for")
    field = value.get("field")
    if field:
        kind = mapped.get(field)
        numeric = value.get("percents") or value.get("customLabel") in ("Mean", "Calls", "Read units", "Write units")
        if kind is None or kind == "text" or (numeric and kind != "double"):
            fault(f"{where} computes with {field}, which is mapped as {kind}")
    for each in value.values():
        check_fields(where, mapped, each)


def check_queries(known):
    """The blocks of docs/logs.md marked `insights`."""
    blocks = re.findall(r"```insights\n(.*?)```", (ROOT / "docs" / "logs.md").read_text(), re.DOTALL)
    if not blocks:
        fault("docs/logs.md has no queries")
    for block in blocks:
        block = re.sub(r"(?m)#.*$", "", block)
        aliases = set(re.findall(r"\bas (\w+)", block))
        bare = re.sub(r'"[^"]*"|/[^/\n]+/|@\w+|\b\d+\w*', " ", block)
        for name in re.findall(r"[A-Za-z_][\w.]*", bare):
            if name not in known | aliases | INSIGHTS_WORDS | PLATFORM_FIELDS:
                fault(f"a query of docs/logs.md names {name}, which no line has:\n{block}")


def check_retention():
    for file in ("opensearch/retention.json", "elasticsearch/retention.json"):
        if "30d" not in json.dumps(json.loads((INFRA / file).read_text())):
            fault(f"{file} does not delete after 30 days, as docs/logs.md says")


def check_shipping(samples):
    ship = shipping_function()
    messages = [*map(json.dumps, samples), json.dumps(METRIC_LINE), json.dumps(PLATFORM_LINE), "no JSON", '["list"]']
    batch = {"messageType": "DATA_MESSAGE", "logEvents": [
        {"id": str(number), "timestamp": 0, "message": message} for number, message in enumerate(messages)
    ]}
    packed = base64.b64encode(gzip.compress(json.dumps(batch).encode())).decode()
    with bulk_endpoint() as endpoint:
        ship["handler"]({"awslogs": {"data": packed}}, None)
        if [line for _, line in endpoint.stored] != samples:
            fault("the function doesn't ship the sample lines, or ships more")
        for action, line in endpoint.stored:
            index = "tidegate-logs-" + line["timestamp"][:10].replace("-", ".")
            if action["create"]["_index"] != index or not action["create"]["_id"]:
                fault(f"the function ships a line as {action}")
        for status, expected in ((409, False), (400, True), (429, True)):
            endpoint.status = status
            try:
                ship["handler"]({"awslogs": {"data": packed}}, None)
                failed = False
            except RuntimeError:
                failed = True
            if failed != expected:
                fault(f"where a line is answered with {status}, the function {'fails' if failed else 'does not fail'}")
        endpoint.status, ship["MAX_BYTES"] = 201, 1
        before = endpoint.requests
        ship["handler"]({"awslogs": {"data": packed}}, None)
        if endpoint.requests - before != len(samples):
            fault("the function doesn't divide a large batch")


def shipping_function():
    """The function's code from the template, with stand-ins for what signs its requests."""
    text = (INFRA / "logs-to-opensearch.yaml").read_text()
    code = re.search(r"ZipFile: \|\n((?: {10}.*\n|\n)+)", text)
    for name in ("botocore", "botocore.auth", "botocore.awsrequest", "botocore.session"):
        sys.modules[name] = types.ModuleType(name)

    class Request:
        def __init__(self, method, url, headers, data):
            self.headers = dict(headers)

    class Signer:
        def __init__(self, credentials, service, region):
            self.scope = f"{credentials}/{region}/{service}"

        def add_auth(self, request):
            request.headers["authorization"] = self.scope

    class Session:
        def get_credentials(self):
            return "role"

    sys.modules["botocore.auth"].SigV4Auth = Signer
    sys.modules["botocore.awsrequest"].AWSRequest = Request
    sys.modules["botocore.session"].Session = Session
    scope = {}
    exec(compile(textwrap.dedent(code[1]), "logs-to-opensearch.yaml", "exec"), scope)
    return scope


@contextlib.contextmanager
def bulk_endpoint():
    """A stand-in for OpenSearch's `_bulk` that answers every line with one status."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = [json.loads(line) for line in self.rfile.read(int(self.headers["content-length"])).splitlines()]
            pairs = list(zip(body[::2], body[1::2]))
            if self.path != "/_bulk" or self.headers["authorization"] != "role/eu-west-1/es":
                fault("the function's request is not a signed one to _bulk")
            self.server.requests += 1
            self.server.stored += pairs if self.server.status == 201 else []
            items = [{"create": {"_id": action["create"]["_id"], "status": self.server.status}} for action, _ in pairs]
            answer = json.dumps({"errors": self.server.status > 201, "items": items}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.status, server.stored, server.requests = 201, [], 0
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        os.environ |= {"ENDPOINT": endpoint, "AWS_REGION": "eu-west-1", "no_proxy": "127.0.0.1"}
        try:
            yield server
        finally:
            server.shutdown()


if __name__ == "__main__":
    main()

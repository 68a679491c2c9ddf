#!/usr/bin/env python3
"""Writes infra/opensearch/dashboards.ndjson, the saved objects of the log dashboard: edit here, not there.

The objects are of the form that Kibana 7.10 and its fork OpenSearch Dashboards share, and say so in `migrationVersion`:
OpenSearch Dashboards 1 to 3 read them as they are, Kibana 7.10 to 8 migrates them while it imports them.
"""
import json
import pathlib

TARGET = pathlib.Path(__file__).parent / "opensearch" / "dashboards.ndjson"
INDEX = "tidegate-logs-*"
PATTERN_ID = "tidegate-logs"
VERSIONS = {"index-pattern": "7.6.0", "search": "7.9.3", "visualization": "7.10.0", "dashboard": "7.9.3"}

RUNS = 'message.keyword: "run ended"'
REQUESTS = 'message.keyword: "answered"'
WEBHOOKS = REQUESTS + ' and data.route: "/api/webhooks/{id}" and data.status: "200"'
NOT_DONE = RUNS + " and data.status: (failed or timed_out)"


def objects():
    panels = [
        (bars("runs-by-outcome", "Runs by outcome", RUNS, [metric("count")], over_time(), split("data.status")), 24),
        (rates("error-rates", "Share that failed", [
            ("Runs failed or timed out", "#BD271E", NOT_DONE, RUNS),
            ("Requests answered with 5xx", "#E7664C", REQUESTS + " and data.status: 5*", REQUESTS),
        ]), 24),
        (lines("run-duration", "Duration of a run, from accepted to finished (ms)", RUNS,
               [percentiles("data.duration_ms")], over_time()), 24),
        (lines("queue-age", "Wait in the queue (ms)", RUNS,
               [percentiles("data.queue_age_ms")], over_time()), 24),
        (table("slowest-workflows", "Slowest workflows (ms)", RUNS, [
            metric("avg", "data.duration_ms", "Mean"), percentiles("data.duration_ms", [95, 99]), metric("count"),
        ], rows("workflow_id", "Workflow")), 24),
        (table("units-by-workflow", "Capacity units by workflow", RUNS, [
            metric("sum", "data.write_units", "Write units"), metric("sum", "data.read_units", "Read units"),
            metric("count"),
        ], rows("workflow_id", "Workflow")), 24),
        (table("failures", "Failures", NOT_DONE, [metric("count")], rows("data.code", "Code", missing=True),
               rows("data.failed_step", "Step", missing=True), rows("workflow_id", "Workflow")), 24),
        (search("failed-runs", "Failed runs", NOT_DONE,
                ["tenant_id", "workflow_id", "run_id", "data.code", "data.failed_step", "trace_id"]), 24),
        (lines("webhook-latency", "Webhooks: time until accepted (ms)", WEBHOOKS,
               [percentiles("data.duration_ms")], over_time()), 24),
        (table("requests", "Requests by route and status", REQUESTS, [
            metric("count"), percentiles("data.duration_ms", [95]),
        ], rows("data.route", "Route"), rows("data.method", "Method"), rows("data.status", "Status")), 24),
        (table("levels", "Lines by component and level", "", [metric("count")],
               rows("component", "Component"), rows("level", "Level")), 16),
        (search("problems", "Warnings and errors", "level: (error or warn)",
                ["level", "component", "message", "data.error", "tenant_id", "run_id", "trace_id"]), 32),
    ]
    yield {
        "id": PATTERN_ID, "type": "index-pattern", "references": [],
        "attributes": {"title": INDEX, "timeFieldName": "timestamp"},
    }
    for saved, _ in panels:
        yield saved
    yield dashboard(panels)


def dashboard(panels):
    """Panels from left to right, the next row where the 48 columns are full."""
    placed, references, x, y = [], [], 0, 0
    for number, (saved, width) in enumerate(panels):
        if x + width > 48:
            x, y = 0, y + 14
        name = f"panel_{number}"
        grid = {"x": x, "y": y, "w": width, "h": 14, "i": str(number)}
        placed.append({
            "version": "7.9.3", "gridData": grid, "panelIndex": str(number), "embeddableConfig": {},
            "panelRefName": name,
        })
        references.append({"name": name, "type": saved["type"], "id": saved["id"]})
        x += width
    return {
        "id": "tidegate", "type": "dashboard", "references": references,
        "attributes": {
            "title": "Tidegate", "description": "Runs, requests and problems, from the logs.", "version": 1,
            "panelsJSON": text(placed), "optionsJSON": text({"useMargins": True, "hidePanelTitles": False}),
            "timeRestore": True, "timeFrom": "now-24h", "timeTo": "now",
            "refreshInterval": {"pause": True, "value": 0},
            "kibanaSavedObjectMeta": {"searchSourceJSON": text({"query": query(""), "filter": []})},
        },
    }


def search(name, title, kuery, columns):
    attributes = {
        "title": title, "description": "", "hits": 0, "version": 1, "columns": columns,
        "sort": [["timestamp", "desc"]],
    }
    source = {"highlightAll": True, "version": True, **from_index(kuery)}
    return {"id": f"tidegate-{name}", "type": "search", **referring(attributes, source)}


def bars(name, title, kuery, metrics, *buckets):
    return chart(name, title, kuery, "histogram", "stacked", metrics, buckets)


def lines(name, title, kuery, metrics, *buckets):
    return chart(name, title, kuery, "line", "normal", metrics, buckets)


def chart(name, title, kuery, shape, mode, metrics, buckets):
    series = [{
        "show": True, "type": shape, "mode": mode, "data": {"label": "", "id": str(number + 1)},
        "valueAxis": "ValueAxis-1", "drawLinesBetweenPoints": True, "lineWidth": 2, "showCircles": True,
        "interpolate": "linear",
    } for number in range(len(metrics))]
    labels = {"show": True, "filter": True, "truncate": 100}
    params = {
        "type": shape, "grid": {"categoryLines": False},
        "categoryAxes": [{
            "id": "CategoryAxis-1", "type": "category", "position": "bottom", "show": True, "style": {},
            "scale": {"type": "linear"}, "labels": labels, "title": {},
        }],
        "valueAxes": [{
            "id": "ValueAxis-1", "name": "LeftAxis-1", "type": "value", "position": "left", "show": True, "style": {},
            "scale": {"type": "linear", "mode": "normal"}, "labels": {**labels, "rotate": 0, "filter": False},
            "title": {"text": ""},
        }],
        "seriesParams": series, "addTooltip": True, "addLegend": True, "legendPosition": "right", "times": [],
        "addTimeMarker": False, "labels": {"show": False},
        "thresholdLine": {"show": False, "value": 10, "width": 1, "style": "full", "color": "#E7664C"},
    }
    return visualization(name, title, kuery, shape, params, metrics, buckets)


def table(name, title, kuery, metrics, *buckets):
    params = {
        "perPage": 10, "showPartialRows": False, "showMetricsAtAllLevels": False, "showTotal": False,
        "totalFunc": "sum", "percentageCol": "", "sort": {"columnIndex": None, "direction": None},
    }
    return visualization(name, title, kuery, "table", params, metrics, buckets)


def visualization(name, title, kuery, shape, params, metrics, buckets):
    numbered = enumerate([*metrics, *buckets], 1)
    aggregations = [{"id": str(number), "enabled": True, **each} for number, each in numbered]
    state = {"title": title, "type": shape, "params": params, "aggs": aggregations}
    attributes = {"title": title, "description": "", "version": 1, "uiStateJSON": "{}", "visState": text(state)}
    return {"id": f"tidegate-{name}", "type": "visualization", **referring(attributes, from_index(kuery))}


def rates(name, title, series):
    """Lines of one count divided by another, which only the time series editor can do."""
    lines = [{
        "id": f"{name}-{number}", "label": label, "color": colour, "split_mode": "everything", "formatter": "percent",
        "metrics": [{
            "id": f"{name}-{number}-ratio", "type": "filter_ratio", "metric_agg": "count",
            "numerator": query(part), "denominator": query(whole),
        }],
        "separate_axis": 0, "axis_position": "right", "chart_type": "line", "line_width": 2, "point_size": 1,
        "fill": 0.2, "stacked": "none", "split_color_mode": "gradient",
    } for number, (label, colour, part, whole) in enumerate(series)]
    params = {
        "id": name, "type": "timeseries", "series": lines, "index_pattern": INDEX, "time_field": "timestamp",
        "interval": "", "axis_position": "left", "axis_formatter": "number", "axis_scale": "normal", "axis_min": "0",
        "show_legend": 1, "show_grid": 1, "tooltip_mode": "show_all", "default_index_pattern": INDEX,
        "default_timefield": "timestamp", "isModelInvalid": False,
    }
    state = {"title": title, "type": "metrics", "params": params, "aggs": []}
    return {
        "id": f"tidegate-{name}", "type": "visualization", "references": [],
        "attributes": {
            "title": title, "description": "", "version": 1, "uiStateJSON": "{}", "visState": text(state),
            "kibanaSavedObjectMeta": {"searchSourceJSON": "{}"},
        },
    }


def metric(kind, field=None, label=None):
    params = {key: value for key, value in (("field", field), ("customLabel", label)) if value}
    return {"type": kind, "schema": "metric", "params": params}


def percentiles(field, percents=(50, 95, 99)):
    return {"type": "percentiles", "schema": "metric", "params": {"field": field, "percents": list(percents)}}


def over_time():
    return {"type": "date_histogram", "schema": "segment", "params": {
        "field": "timestamp", "useNormalizedOpenSearchInterval": True, "useNormalizedEsInterval": True,
        "interval": "auto", "drop_partials": False, "min_doc_count": 1, "extended_bounds": {},
    }}


def split(field):
    return {"type": "terms", "schema": "group", "params": terms(field)}


def rows(field, label, missing=False):
    """A row for each value, the largest of the first metric first, and on demand one for lines without the field."""
    return {"type": "terms", "schema": "bucket", "params": {**terms(field, missing), "customLabel": label}}


def terms(field, missing=False):
    return {
        "field": field, "orderBy": "1", "order": "desc", "size": 20, "otherBucket": False, "otherBucketLabel": "Other",
        "missingBucket": missing, "missingBucketLabel": "none",
    }


def from_index(kuery):
    return {"query": query(kuery), "filter": [], "indexRefName": "kibanaSavedObjectMeta.searchSourceJSON.index"}


def referring(attributes, source):
    attributes["kibanaSavedObjectMeta"] = {"searchSourceJSON": text(source)}
    return {
        "attributes": attributes,
        "references": [{"name": source["indexRefName"], "type": "index-pattern", "id": PATTERN_ID}],
    }


def query(kuery):
    return {"query": kuery, "language": "kuery"}


def text(value):
    return json.dumps(value, separators=(",", ":"))


def render():
    saved = [{**each, "migrationVersion": {each["type"]: VERSIONS[each["type"]]}} for each in objects()]
    return "".join(text(each) + "\n" for each in saved)


if __name__ == "__main__":
    TARGET.write_text(render())

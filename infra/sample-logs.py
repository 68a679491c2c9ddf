#!/usr/bin/env python3
"""Prints log lines as Tidegate really writes them: infra/sample-logs.py BINARY > infra/sample-logs.jsonl

Runs the given `tidegate` with a folder of its own, drives it through sign-up, a workflow that succeeds, one that fails
and requests that are refused, stops it, and keeps one line of each kind: of each message and each set of fields. Run it
again when a line of the source gains, changes or loses a field.
"""
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

WAIT_SECONDS = 30


def main(binary):
    with tempfile.TemporaryDirectory() as folder, open(f"{folder}/log", "w+") as log:
        command = [binary, "serve", "--demo", "--port", "0", "--data-dir", f"{folder}/data", "--log", "info"]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            drive(f"{folder}/log")
        finally:
            server.terminate()
            server.wait(WAIT_SECONDS)
        log.seek(0)
        kept = {}
        for text in log:
            if not text.startswith('{"timestamp"'):
                continue
            line = json.loads(text)
            data = line.get("data", {})
            kind = (line["message"], data.get("route"), data.get("code"), *line, *data)
            kept.setdefault(kind, text)
        sys.stdout.writelines(kept.values())


def drive(log):
    base = wait_for(log, r"Tidegate listens on (http://\S+)")
    account = {"email": "alex@example.com", "password": "correct horse battery staple"}
    names = {"name": "Alex", "tenant_name": "Example"}
    token = call(base, "POST", "/api/auth/register", {**account, **names})["access_token"]
    call(base, "POST", "/api/auth/login", {**account, "password": "wrong horse battery staple"}, expect=401)
    call(base, "GET", "/api/workflows", expect=401)
    target = {"name": "Nobody", "connector": "slack", "data": {"webhook_url": "http://127.0.0.1:9/"}}
    connection = call(base, "POST", "/api/connections", target, token)["id"]
    demo = wait_for(log, r"(/api/webhooks/wf_\w+)")
    failing = {
        "name": "Fails",
        "trigger": {"type": "webhook"},
        "steps": [{
            "id": "notify", "uses": "slack.send_message", "connection": connection,
            "with": {"text": "{{ user.name }}"}, "retry": {"max_attempts": 1},
        }],
    }
    failing = "/api/webhooks/" + call(base, "POST", "/api/workflows", failing, token)["id"]
    call(base, "POST", demo, {"user": {"name": "Alex"}, "order": {"id": "12345", "total": 99.5}})
    run = call(base, "POST", failing, {"user": {"name": "Alex"}})["run_id"]
    call(base, "POST", "/api/webhooks/wf_00000000000070008000000000000000", {}, expect=404)
    wait_for(log, '("message":"run ended".*"status":"failed")')
    wait_for(log, '("message":"run ended".*"status":"succeeded")')
    call(base, "GET", f"/api/runs/{run}", token=token)


def wait_for(log, pattern):
    """What the pattern's group matches, as soon as the log has it."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        with open(log) as file:
            found = re.search(pattern, file.read())
        if found:
            return found[1]
        time.sleep(0.05)
    sys.exit(f"the log has no {pattern} after {WAIT_SECONDS} s")


def call(base, method, path, body=None, token=None, expect=None):
    headers = {"content-type": "application/json"}
    if token:
        headers["authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(base + path, data, headers, method=method)) as answer:
            status, text = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    if not (status == expect if expect else status < 300):
        sys.exit(f"{method} {path} answered {status}: {text.decode()}")
    return json.loads(text)


if __name__ == "__main__":
    main(*sys.argv[1:])

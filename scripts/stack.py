"""What scripts/deploy asks of AWS apart from deploying; runs in the environment that it installs."""

import argparse
import getpass
import json
import os
import sys

import boto3
import botocore.exceptions as errors
from botocore.config import Config

# Logical ids in template.yaml of what the deletion of a stack keeps.
TABLES = ("ConfigTable", "HistoryTable")
BUCKET = "Blobs"
KEY = "Key"
KEY_DELETION_DAYS = 30

AWS_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")

NO_CREDENTIALS = """No AWS credentials. Say which to use, for example:
    export AWS_PROFILE=…          a profile of ~/.aws/config (`aws configure sso`, `aws sso login`)
    export AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=…"""


def main():
    arguments = parse()
    try:
        COMMANDS[arguments.command](arguments)
    except (errors.NoCredentialsError, errors.PartialCredentialsError):
        sys.exit(NO_CREDENTIALS)
    except errors.NoRegionError:
        sys.exit("No AWS region. Say which: export AWS_REGION=eu-central-1")
    except KeyboardInterrupt:
        sys.exit("\nscripts/deploy: stopped; say the same again to go on")
    except (errors.BotoCoreError, errors.ClientError) as error:
        sys.exit(f"scripts/deploy: {error}")


def parse():
    parser = argparse.ArgumentParser(prog="scripts/deploy")
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--stack", required=True)
    parser.add_argument("--email")
    parser.add_argument("--name")
    parser.add_argument("--tenant")
    parser.add_argument("--with-data", action="store_true")
    parser.add_argument("--yes", action="store_true")
    return parser.parse_args()


def client(service):
    # An invocation that may have been carried out is not repeated.
    return boto3.client(service, config=Config(retries={"total_max_attempts": 1} if service == "lambda" else {}))


def check(_):
    if not boto3.Session().region_name:
        raise errors.NoRegionError()
    caller = client("sts").get_caller_identity()
    where = os.environ.get("AWS_ENDPOINT_URL") or f"account {caller['Account']}, {boto3.Session().region_name}"
    print(f"Using {where}, as {caller['Arn']}", file=sys.stderr)


def describe(stack):
    """The stack, or None."""
    try:
        return client("cloudformation").describe_stacks(StackName=stack)["Stacks"][0]
    except errors.ClientError as error:
        if "does not exist" in str(error):
            return None
        raise


def deployed(stack):
    found = describe(stack)
    if not found:
        sys.exit(f"There is no stack {stack} here. --stack names another.")
    return found


def stack_outputs(stack):
    return {output["OutputKey"]: output["OutputValue"] for output in deployed(stack).get("Outputs", [])}


def architecture(arguments):
    found = describe(arguments.stack) or {}
    given = {each["ParameterKey"]: each["ParameterValue"] for each in found.get("Parameters", [])}
    print(given.get("Architecture", "x86_64"))


def clear(arguments):
    """Removes what a failed first deployment left: CloudFormation updates no such stack, and it holds no data."""
    found = describe(arguments.stack)
    if found and found["StackStatus"] in ("ROLLBACK_COMPLETE", "ROLLBACK_FAILED"):
        print(f"Removing what the failed deployment of {arguments.stack} left", file=sys.stderr)
        delete_stack(found["StackId"])


def delete_stack(stack_id):
    formation = client("cloudformation")
    formation.delete_stack(StackName=stack_id)
    formation.get_waiter("stack_delete_complete").wait(StackName=stack_id, WaiterConfig={"Delay": 5})


def outputs(arguments):
    print(json.dumps({**stack_outputs(arguments.stack), "ApiUrl": api_url(arguments.stack)}, indent=2))


def environment(arguments):
    """The variables of all functions together, as lines of an environment file."""
    found = stack_outputs(arguments.stack)
    functions = client("lambda")
    names = [found[f"{name}Function"] for name in ("Auth", "Workflows", "Webhooks", "Runs", "Admin", "Worker")]
    described = [functions.get_function_configuration(FunctionName=name) for name in names]
    variables = {name: value for each in described for name, value in each["Environment"]["Variables"].items()}
    inherited = ("AWS_ENDPOINT_URL", "AWS_REGION") + (AWS_KEYS if "AWS_ENDPOINT_URL" in os.environ else ())
    variables |= {name: os.environ[name] for name in inherited if name in os.environ}
    for name, value in sorted(variables.items()):
        print(f"{name}={value}")


def api_url(stack):
    found = stack_outputs(stack)
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return f"{endpoint}/_aws/execute-api/{found['ApiId']}/$default" if endpoint else found["ApiUrl"]


def next_step(arguments):
    same = "" if arguments.stack == "tidegate" else f" --stack {arguments.stack}"
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    same += f" --endpoint {endpoint}" if endpoint else ""
    url = api_url(arguments.stack)
    faults = smoke(arguments.stack)
    if faults:
        sys.exit("It is deployed, but it does not work; what to change may be in the functions' logs:\n" + "\n".join(faults))
    print(f"""
Tidegate is at  {url}
Its health      curl '{url}/q/health'
First owner     scripts/deploy owner{same}
Administrator   scripts/deploy administrator{same}""")


def smoke(stack):
    """What doesn't answer of a stack that was just deployed: each function starts, and does nothing."""
    found = stack_outputs(stack)
    nothing = {name: {"version": "2.0", "routeKey": "$default", "rawPath": "/nothing-here", "rawQueryString": "",
                      "headers": {}, "isBase64Encoded": False, "requestContext": {
                          "stage": "$default", "http": {"method": "GET", "path": "/nothing-here"}}}
               for name in ("Auth", "Workflows", "Webhooks", "Runs", "Admin")} | {"Worker": {"Records": []}}
    faults = []
    for name, event in nothing.items():
        answer = client("lambda").invoke(FunctionName=found[f"{name}Function"], Payload=json.dumps(event).encode())
        payload = answer["Payload"].read().decode()
        if "FunctionError" in answer:
            faults.append(f"  {found[name + 'Function']}: {payload[:500]}")
    return faults


def owner(arguments):
    function = stack_outputs(arguments.stack)["AuthFunction"]
    interactive = sys.stdin.isatty()
    person = {
        "email": arguments.email or ask("Email", interactive, "--email"),
        "name": arguments.name or ask("Name", interactive, "--name"),
        "tenant_name": arguments.tenant or ask("Name of the organization", interactive, "--tenant"),
        "password": password(interactive),
    }
    payload, fault = command(function, {"create_owner": person})
    if fault:
        sys.exit(f"The owner was not made: {fault}")
    try:
        print(f"{payload['user']['email']} owns {payload['tenant']['name']} ({payload['tenant']['id']}). Sign in with "
              f"POST {api_url(arguments.stack)}/api/auth/login")
    except (KeyError, TypeError):
        sys.exit(f"{function} answered otherwise than expected: {payload}")


def administrator(arguments):
    function = stack_outputs(arguments.stack)["AuthFunction"]
    interactive = sys.stdin.isatty()
    person = {"email": arguments.email or ask("Email", interactive, "--email")}
    if arguments.name:
        person["name"] = arguments.name
    # Whose account exists needs no password: it stays.
    payload, fault = command(function, {"create_administrator": person})
    if fault and '"/password"' in fault:
        payload, fault = command(function, {"create_administrator": person | {"password": password(interactive)}})
    if fault:
        sys.exit(f"Nothing was changed: {fault}")
    try:
        done = "is" if payload["changed"] else "was already"
        print(f"{payload['email']} {done} an administrator of this installation" +
              ("." if payload["account_created"] else "; the account's password stays as it was.") +
              f" Sign in with POST {api_url(arguments.stack)}/api/auth/login")
    except (KeyError, TypeError):
        sys.exit(f"{function} answered otherwise than expected: {payload}")


def command(function, asked):
    """What a direct call of the function answers, and why it failed if it did."""
    answer = client("lambda").invoke(FunctionName=function, Payload=json.dumps(asked).encode())
    payload = json.load(answer["Payload"])
    if "FunctionError" not in answer:
        return payload, None
    return None, str(payload.get("errorMessage") if isinstance(payload, dict) else payload)


def ask(what, interactive, option):
    if not interactive:
        sys.exit(f"{option} is missing")
    return input(f"{what}: ").strip()


def password(interactive):
    if not interactive:
        return sys.stdin.readline().rstrip("\r\n")
    first = getpass.getpass("Password: ")
    if getpass.getpass("Again: ") != first:
        sys.exit("The two differ.")
    return first


def delete(arguments):
    found = deployed(arguments.stack)
    resources = client("cloudformation").describe_stack_resources(StackName=found["StackId"])["StackResources"]
    there = [each for each in resources if each["ResourceStatus"] != "DELETE_COMPLETE"]
    ids = {each["LogicalResourceId"]: each.get("PhysicalResourceId") for each in there}
    kept = {name: ids[name] for name in (*TABLES, BUCKET, KEY) if ids.get(name)}
    confirm(arguments)
    # Named before the stack is gone, and with it what knows them.
    print(f"Deleting {arguments.stack}. Its data: {', '.join(kept.values()) or 'none'}", file=sys.stderr)
    delete_stack(found["StackId"])
    print(f"The stack {arguments.stack} is deleted.")
    if not arguments.with_data:
        print("Kept, and still paid for:" if kept else "It had no data.")
        for name, physical in kept.items():
            print(f"  {name:12} {physical}")
        return
    if BUCKET in kept:
        delete_bucket(kept[BUCKET])
    for table in TABLES:
        if table in kept:
            delete_table(kept[table])
    if KEY in kept:
        answer = client("kms").schedule_key_deletion(KeyId=kept[KEY], PendingWindowInDays=KEY_DELETION_DAYS)
        when = f"{answer['DeletionDate']:%Y-%m-%d}"
        print(f"The key {kept[KEY]} is deleted on {when}; until then it can be brought back.")


def confirm(arguments):
    if arguments.yes:
        return
    what = "and ALL its data" if arguments.with_data else "but not its data"
    if not sys.stdin.isatty():
        sys.exit(f"This deletes the stack {arguments.stack} {what}: say --yes")
    if input(f"This deletes the stack {arguments.stack} {what}. Type its name to go on: ") != arguments.stack:
        sys.exit("Nothing was deleted.")


def delete_bucket(name):
    storage = client("s3")
    count = 0
    for page in storage.get_paginator("list_objects_v2").paginate(Bucket=name):
        keys = [{"Key": each["Key"]} for each in page.get("Contents", [])]
        if not keys:
            continue
        failed = storage.delete_objects(Bucket=name, Delete={"Objects": keys, "Quiet": True}).get("Errors")
        if failed:
            sys.exit(f"{name}/{failed[0]['Key']} can't be deleted: {failed[0]['Message']}")
        count += len(keys)
    storage.delete_bucket(Bucket=name)
    print(f"The bucket {name} is deleted, with {count} objects.")


def delete_table(name):
    database = client("dynamodb")
    database.delete_table(TableName=name)
    database.get_waiter("table_not_exists").wait(TableName=name, WaiterConfig={"Delay": 5})
    print(f"The table {name} is deleted.")


COMMANDS = {"check": check, "architecture": architecture, "outputs": outputs, "environment": environment,
            "clear": clear, "next": next_step, "owner": owner,
            "administrator": administrator, "delete": delete}

if __name__ == "__main__":
    main()

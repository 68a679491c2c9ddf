"""What ministack leaves out or does otherwise than AWS, where Tidegate's tests depend on it. Runs inside ministack.

Each patch follows AWS's documentation, so that what passes here passes there: a function that is refused a key has to
be refused by its policy's condition, not by a gap of the emulator.
"""

import json
import re
import time

from ministack import app
from ministack.core import iam_actions, iam_evaluator
from ministack.services import apigateway, dynamodb, eventbridge, scheduler, sqs
from ministack.services.cloudformation import provisioners

# How an API document says ANY.
ANY_METHOD = "x-amazon-apigateway-any-method"
INTEGRATION = "x-amazon-apigateway-integration"

# What matches no key pattern of a policy: for a request whose partition key can't be told.
UNKNOWN_KEY = ""


def apply():
    schedules_send_to_queues()
    schedules_are_listed_in_pages()
    http_apis_have_bodies()
    tables_have_expiry_and_recovery()
    alarms_may_compute()
    mappings_take_parameters()
    policies_see_partition_keys()
    policies_see_encryption_contexts()
    policies_see_schedule_groups()
    loopback_counts_as_tls()


def schedules_send_to_queues():
    """EventBridge Scheduler: the universal target sqs:sendMessage and the scheduled-time attribute."""
    invoke = eventbridge._invoke_target

    def invoke_target(target, event, rule, view=None):
        if target.get("Arn") != "arn:aws:scheduler:::aws-sdk:sqs:sendMessage":
            return invoke(target, event, rule, view)
        planned = scheduler._at_time_epoch(rule["ScheduleExpression"]) or event["Time"]
        text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(planned))
        request = json.loads(target["Input"].replace("<aws.scheduler.scheduled-time>", text))
        sqs._act_send_message(request, "")

    eventbridge._invoke_target = invoke_target
    scheduler._SCHEDULE_TICK_INTERVAL = 1


def schedules_are_listed_in_pages():
    """ListSchedules: NextToken."""
    list_schedules = scheduler._list_schedules

    def page(query):
        size, start = int(query.get("MaxResults", 100)), int(query.get("NextToken", 0))
        status, headers, body = list_schedules({**query, "MaxResults": str(1_000_000)})
        schedules = json.loads(body)["Schedules"]
        listed = {"Schedules": schedules[start : start + size]}
        if start + size < len(schedules):
            listed["NextToken"] = str(start + size)
        return status, headers, json.dumps(listed).encode()

    scheduler._list_schedules = page


def http_apis_have_bodies():
    """CloudFormation's AWS::ApiGatewayV2::Api: routes and integrations from the property Body."""
    wrap("AWS::ApiGatewayV2::Api", after=import_body)


def wrap(resource_type, before=lambda properties: properties, after=lambda physical_id, properties: None):
    """Changes a resource's properties before CloudFormation creates or updates it, and completes it after."""
    handler = provisioners._RESOURCE_HANDLERS[resource_type]
    create, update = handler["create"], handler["update"]

    def create_wrapped(logical_id, properties, stack_name):
        properties = before(properties)
        physical_id, attributes = create(logical_id, properties, stack_name)
        after(physical_id, properties)
        return physical_id, attributes

    def update_wrapped(physical_id, old, new, *more, **named):
        new = before(new)
        physical_id, attributes = update(physical_id, before(old), new, *more, **named)
        after(physical_id, new)
        return physical_id, attributes

    handler.update(create=create_wrapped, update=update_wrapped)


def import_body(api_id, props):
    body = props.get("Body")
    if not body:
        return
    apigateway._routes[api_id] = {}
    apigateway._integrations[api_id] = {}
    for path, methods in body["paths"].items():
        for method, operation in methods.items():
            if method != ANY_METHOD and method not in ("get", "put", "post", "delete", "options", "head", "patch"):
                continue
            key = "$default" if path == "/$default" else f"{'ANY' if method == ANY_METHOD else method.upper()} {path}"
            integration = operation[INTEGRATION]
            integration_id, _ = provisioners._apigw_v2_integration_create("", {
                "ApiId": api_id,
                "IntegrationType": integration["type"].upper(),
                "IntegrationUri": integration["uri"],
                "IntegrationMethod": integration.get("httpMethod", "POST"),
                "PayloadFormatVersion": integration.get("payloadFormatVersion", "2.0"),
            }, "")
            route = {"ApiId": api_id, "RouteKey": key, "Target": f"integrations/{integration_id}"}
            provisioners._apigw_v2_route_create("", route, "")


def tables_have_expiry_and_recovery():
    """CloudFormation's AWS::DynamoDB::Table: time to live and point-in-time recovery."""
    wrap("AWS::DynamoDB::Table", after=set_expiry_and_recovery)


def set_expiry_and_recovery(table, props):
    expiry = props.get("TimeToLiveSpecification")
    if expiry:
        enabled = str(expiry["Enabled"]).lower() == "true"
        request = {"AttributeName": expiry.get("AttributeName", ""), "Enabled": enabled}
        done(dynamodb._update_ttl({"TableName": table, "TimeToLiveSpecification": request}))
    recovery = props.get("PointInTimeRecoverySpecification") or {}
    enabled = str(recovery.get("PointInTimeRecoveryEnabled", False)).lower() == "true"
    request = {"PointInTimeRecoveryEnabled": enabled}
    done(dynamodb._update_continuous_backups({"TableName": table, "PointInTimeRecoverySpecification": request}))


def done(response):
    if response[0] >= 400:
        raise ValueError(response[2])


def alarms_may_compute():
    """CloudFormation's AWS::CloudWatch::Alarm: a computed alarm is accepted. It watches the first of its metrics."""
    record = provisioners._cw_metric_alarm_record

    def record_of_first(name, props):
        stats = [metric["MetricStat"] for metric in props.get("Metrics") or [] if "MetricStat" in metric]
        if not stats:
            return record(name, props)
        first = {"Period": stats[0]["Period"], "Statistic": stats[0]["Stat"], **stats[0]["Metric"]}
        return record(name, {**{key: value for key, value in props.items() if key != "Metrics"}, **first})

    provisioners._cw_metric_alarm_record = record_of_first


def mappings_take_parameters():
    """CloudFormation's AWS::Lambda::EventSourceMapping: a parameter, which is text, for a maximum concurrency."""

    def with_numbers(properties):
        scaling = properties.get("ScalingConfig")
        if not scaling:
            return properties
        return {**properties, "ScalingConfig": {key: int(value) for key, value in scaling.items()}}

    wrap("AWS::Lambda::EventSourceMapping", before=with_numbers)


def policies_see_partition_keys():
    """The condition key dynamodb:LeadingKeys: the partition keys of all items that a request names, of a query the one
    it asks for; of an index, the index's. Absent from a Scan. Each part of a transaction is authorised with its own."""
    context = iam_actions.dynamodb_service_context
    checks = iam_actions.dynamodb_transaction_checks
    enforce = iam_evaluator.enforce

    def context_with_keys(body):
        found = context(body)
        keys = leading_keys(parsed(body))
        return found if keys is None else {**found, "dynamodb:LeadingKeys": keys}

    def checks_with_keys(action, body, region, account_id):
        parts = checks(action, body, region, account_id)
        keys = [item_keys(part, "Item" if member == "Put" else "Key")
                for item in parsed(body).get("TransactItems") or [] if isinstance(item, dict)
                for member, part in transaction_members(item)]
        if len(keys) != len(parts):
            raise ValueError("a transaction's keys and checks don't match")
        return [(action, PartArn(arn, own)) for (action, arn), own in zip(parts, keys)]

    def enforce_part(access_key, action, service, region, resource_arn="*", service_context=None):
        if isinstance(resource_arn, PartArn):
            service_context = {**(service_context or {}), "dynamodb:LeadingKeys": resource_arn.keys}
        return enforce(access_key, action, service, region, resource_arn=resource_arn, service_context=service_context)

    iam_actions.dynamodb_service_context = context_with_keys
    iam_actions.dynamodb_transaction_checks = checks_with_keys
    iam_evaluator.enforce = enforce_part


class PartArn(str):
    """The table of a transaction's part, and the partition keys of that part."""

    def __new__(cls, arn, keys):
        part = super().__new__(cls, arn)
        part.keys = keys
        return part


def transaction_members(item):
    """The parts of one entry, in the order and by the rule of ministack's own checks."""
    for member in iam_actions._DYNAMODB_TRANSACT_ITEM_ACTIONS:
        part = item.get(member)
        if isinstance(part, dict) and isinstance(part.get("TableName"), str) and part["TableName"]:
            yield member, part


def leading_keys(request):
    """None where the request names no item and no partition."""
    if "KeyConditionExpression" in request or "KeyConditions" in request:
        return [queried_key(request)]
    if isinstance(request.get("RequestItems"), dict):
        return [key for table, asked in request["RequestItems"].items() for key in batch_keys(table, asked)]
    if isinstance(request.get("TransactItems"), list):
        return None
    for member in ("Key", "Item"):
        if member in request:
            return item_keys(request, member)
    return None


def batch_keys(table, asked):
    if isinstance(asked, dict):
        rows = asked.get("Keys") or []
    else:
        rows = [(entry.get("PutRequest") or {}).get("Item") or (entry.get("DeleteRequest") or {}).get("Key") or {}
                for entry in asked or []]
    return [key for row in rows for key in item_keys({"TableName": table, "Key": row}, "Key")]


def item_keys(request, member):
    row = request.get(member)
    name = partition_attribute(request)
    return [text(row.get(name)) if isinstance(row, dict) else UNKNOWN_KEY]


def queried_key(request):
    attribute = partition_attribute(request, request.get("IndexName"))
    legacy = (request.get("KeyConditions") or {}).get(attribute)
    if legacy:
        values = legacy.get("AttributeValueList") or [None]
        return text(values[0]) if legacy.get("ComparisonOperator") == "EQ" else UNKNOWN_KEY
    names = request.get("ExpressionAttributeNames") or {}
    values = request.get("ExpressionAttributeValues") or {}
    tokens = re.findall(r"[#:\w.-]+|[<>=]+", request.get("KeyConditionExpression") or "")
    for left, operator, right in zip(tokens, tokens[1:], tokens[2:]):
        if operator != "=":
            continue
        for name, value in ((left, right), (right, left)):
            if names.get(name, name) == attribute and value in values:
                return text(values[value])
    return UNKNOWN_KEY


def partition_attribute(request, index=None):
    name = request.get("TableName")
    table = dynamodb._tables.get(dynamodb._normalize_table_name(name)) if isinstance(name, str) else None
    schema = (table or {}).get("KeySchema") or []
    if index:
        indexes = (table or {}).get("GlobalSecondaryIndexes") or []
        indexes = [*indexes, *((table or {}).get("LocalSecondaryIndexes") or [])]
        schema = next((each["KeySchema"] for each in indexes if each["IndexName"] == index), [])
    return next((part["AttributeName"] for part in schema if part["KeyType"] == "HASH"), None)


def text(value):
    """An attribute value as policies see it."""
    if not isinstance(value, dict):
        return UNKNOWN_KEY
    return next((str(value[kind]) for kind in ("S", "N", "B") if kind in value), UNKNOWN_KEY)


def policies_see_encryption_contexts():
    """The condition keys kms:EncryptionContext:<key> and kms:EncryptionContextKeys."""
    tags = iam_actions.request_tag_context

    def tags_and_encryption_context(service, action, body, params):
        found = tags(service, action, body, params)
        pairs = parsed(body).get("EncryptionContext") if service == "kms" else None
        if not isinstance(pairs, dict) or not pairs:
            return found
        context = {f"kms:EncryptionContext:{key}": str(value) for key, value in pairs.items()}
        return {**found, **context, "kms:EncryptionContextKeys": list(pairs)}

    iam_actions.request_tag_context = tags_and_encryption_context


def policies_see_schedule_groups():
    """A schedule's ARN names its group, which ministack takes for `default`."""
    resource_arn = iam_actions.extract_resource_arn

    def schedule_arn(service, method, path, headers, body, query_params, region, account_id):
        arn = resource_arn(service, method, path, headers, body, query_params, region, account_id)
        group = parsed(body).get("GroupName") if service == "scheduler" else None
        if service == "scheduler" and method == "GET" and path.rstrip("/") == "/schedules":
            group = query_params.get("ScheduleGroup")
            group = group[0] if isinstance(group, list) else group
            return f"arn:aws:scheduler:{region}:{account_id}:schedule/{group or '*'}/*"
        if service == "scheduler" and not group:
            group = query_params.get("groupName")
            group = group[0] if isinstance(group, list) else group
        return arn.replace(":schedule/default/", f":schedule/{group}/", 1) if group else arn

    iam_actions.extract_resource_arn = schedule_arn


def loopback_counts_as_tls():
    """aws:SecureTransport: the emulator speaks plain HTTP on the loopback interface, AWS's endpoints only TLS."""
    pin = app.pin_request_origin
    app.pin_request_origin = lambda address, _secure: pin(address, True)


def parsed(body):
    try:
        request = json.loads(body or b"{}")
    except (ValueError, TypeError):
        return {}
    return request if isinstance(request, dict) else {}

//! `template.yaml` against the code: each function's policy against its `Deps`, the tables against the store's
//! definitions, the routes against the OpenAPI document.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};

use serde_yaml_ng::Value;
use tidegate_platform::blobs::{KEPT, UPLOADS};
use tidegate_store::{Projection, TableDefinition};
use tidegate_testing::policy::{Statement, statements, template};

/// Each function and the source of its `Deps`.
const FUNCTIONS: [(&str, &str); 6] = [
    ("auth", include_str!("../../functions/auth/src/lib.rs")),
    ("workflows", include_str!("../../functions/workflows/src/lib.rs")),
    ("webhooks", include_str!("../../functions/webhooks/src/lib.rs")),
    ("runs", include_str!("../../functions/runs/src/lib.rs")),
    ("admin", include_str!("../../functions/admin/src/lib.rs")),
    ("worker", include_str!("../../functions/worker/src/lib.rs")),
];

/// The AWS services that a dependency of this type stands for.
fn services(dependency: &str) -> &'static [&'static str] {
    match dependency {
        "Store" | "TokenVerifier" | "Authenticator" | "RateLimiter" => &["dynamodb"],
        "Arc<dyn Queue>" => &["sqs"],
        // A schedule sends with a role of its own, which whoever makes it hands over.
        "Arc<dyn Scheduler>" => &["scheduler", "iam"],
        "Arc<dyn Blobs>" => &["s3"],
        "Arc<dyn Mailer>" => &["ses"],
        "Envelope" | "Egress" => &["kms"],
        "Connections" => &["dynamodb", "kms", "s3"],
        "TokenSigner" => &["dynamodb", "kms"],
        "Clock" | "Ids" | "Passwords" | "Registration" | "Settings" | "Option<String>" | "Metrics" | "Arc<Caches>"
        | "Arc<AtomicU64>" => &[],
        other => panic!("say what {other} stands for: which AWS services its use needs"),
    }
}

/// The types of the fields of `Deps`.
fn dependencies(source: &str) -> Vec<&str> {
    let (_, fields) = source.split_once("pub struct Deps {\n").unwrap();
    let (fields, _) = fields.split_once("\n}").unwrap();
    let fields = fields.lines().map(str::trim).filter(|line| !line.starts_with("//"));
    fields.map(|field| field.trim_end_matches(',').split_once(": ").unwrap().1).collect()
}

fn actions<'a>(statements: &'a [Statement], service: &str) -> BTreeSet<&'a str> {
    let all = statements.iter().flat_map(|statement| &statement.actions);
    all.map(String::as_str).filter(|action| action.split(':').next() == Some(service)).collect()
}

#[test]
fn a_functions_policy_names_the_services_of_its_dependencies_and_no_other() {
    for (function, source) in FUNCTIONS {
        let needed: BTreeSet<_> = dependencies(source).into_iter().flat_map(services).copied().collect();
        let statements = statements(function);
        let actions = statements.iter().flat_map(|statement| &statement.actions);
        let allowed: BTreeSet<_> = actions.map(|action| action.split(':').next().unwrap()).collect();
        assert_eq!(allowed, needed, "{function}: the services of its policy, and those of its dependencies");
    }
}

#[test]
fn no_policy_is_wider_than_keys_contexts_and_prefixes() {
    for (function, _) in FUNCTIONS {
        for statement in statements(function) {
            for action in &statement.actions {
                assert!(!action.contains('*') && action != "dynamodb:Scan", "{function}: {action}");
                let service = action.split(':').next().unwrap();
                match service {
                    "dynamodb" => {
                        let keys = statement.leading_keys.as_ref();
                        let keys = keys.unwrap_or_else(|| panic!("{function}: {action} on any key"));
                        assert!(keys.iter().all(|key| key.contains('#')), "{function}: {action} on {keys:?}");
                    }
                    "kms" | "iam" | "ses" => assert!(statement.has_condition, "{function}: {action} in any context"),
                    "s3" | "sqs" | "scheduler" => {}
                    other => panic!("{function}: a service that no function needs: {other}"),
                }
            }
            for resource in &statement.resources {
                assert!(resource != "*" && resource != "Blobs/*", "{function}: {:?} on {resource}", statement.actions);
            }
        }
    }
    for function in ["webhooks", "workflows"] {
        assert_eq!(actions(&statements(function), "sqs"), BTreeSet::from(["sqs:SendMessage"]), "{function}");
    }
    assert_eq!(actions(&statements("runs"), "sqs"), BTreeSet::from(["sqs:SendMessage"]));
    assert_eq!(actions(&statements("runs"), "s3"), BTreeSet::from(["s3:GetObject", "s3:ListBucket", "s3:PutObject"]));
}

#[test]
fn who_may_do_what_with_which_blobs() {
    let granted = |function: &str| {
        let mut granted = BTreeSet::new();
        for statement in statements(function) {
            for action in statement.actions.iter().filter_map(|action| action.strip_prefix("s3:")) {
                granted.extend(statement.resources.iter().map(|resource| format!("{action} {resource}")));
            }
        }
        granted.into_iter().collect::<Vec<_>>()
    };
    let webhooks = [
        "GetObject Blobs/kept/*",
        "GetObject Blobs/uploads/*",
        "ListBucket Blobs",
        "PutObject Blobs/live/*",
        "PutObject Blobs/uploads/*",
    ];
    assert_eq!(granted("webhooks"), webhooks);
    assert_eq!(granted("workflows"), ["PutObject Blobs/live/*"]);
    let worker = [
        "DeleteObject Blobs/files/*",
        "DeleteObject Blobs/kept/*",
        "DeleteObject Blobs/live/*",
        "GetObject Blobs/files/*",
        "GetObject Blobs/kept/*",
        "GetObject Blobs/live/*",
        "GetObject Blobs/uploads/*",
        "ListBucket Blobs",
        "PutObject Blobs/files/*",
        "PutObject Blobs/kept/*",
        "PutObject Blobs/live/*",
    ];
    assert_eq!(granted("worker"), worker, "what was uploaded is read, and left to its lifetime");
}

#[test]
fn blobs_expire_by_their_lifetimes() {
    let rules = &template()["Resources"]["Blobs"]["Properties"]["LifecycleConfiguration"]["Rules"];
    let expiring: BTreeSet<_> = rules
        .as_sequence()
        .unwrap()
        .iter()
        .filter(|rule| !rule["ExpirationInDays"].is_null())
        .map(|rule| (text(&rule["Prefix"]), text(&rule["Status"])))
        .collect();
    let (kept, uploads) = (format!("{KEPT}/"), format!("{UPLOADS}/"));
    assert_eq!(expiring, BTreeSet::from([(kept.as_str(), "Enabled"), (uploads.as_str(), "Enabled")]));
}

#[test]
fn the_tables_are_as_the_store_defines_them() {
    for (name, definition) in [("ConfigTable", TableDefinition::CONFIG), ("HistoryTable", TableDefinition::HISTORY)] {
        let table = &template()["Resources"][name]["Properties"];
        assert_eq!(keys(&table["KeySchema"]), [definition.hash, definition.range], "{name}");
        assert_eq!(table["BillingMode"], "PAY_PER_REQUEST", "{name}");
        let recovery = &table["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"];
        assert_eq!(recovery.as_bool().unwrap_or(false), definition.point_in_time_recovery, "{name}");
        assert_eq!(table["TimeToLiveSpecification"]["AttributeName"].as_str(), definition.ttl, "{name}");
        let indexes = table["GlobalSecondaryIndexes"].as_sequence().unwrap();
        assert_eq!(indexes.len(), definition.indexes.len(), "{name}");
        for (index, defined) in indexes.iter().zip(definition.indexes) {
            assert_eq!(index["IndexName"], defined.name);
            assert_eq!(keys(&index["KeySchema"]), [defined.hash, defined.range], "{}", defined.name);
            let (kind, attributes): (_, &[&str]) = match defined.projection {
                Projection::All => ("ALL", &[]),
                Projection::KeysOnly => ("KEYS_ONLY", &[]),
                Projection::Include(attributes) => ("INCLUDE", attributes),
            };
            assert_eq!(index["Projection"]["ProjectionType"], kind, "{}", defined.name);
            let included = index["Projection"]["NonKeyAttributes"].as_sequence();
            assert_eq!(included.into_iter().flatten().map(text).collect::<Vec<_>>(), attributes, "{}", defined.name);
        }
    }
}

fn keys(schema: &Value) -> Vec<&str> {
    schema.as_sequence().unwrap().iter().map(|key| text(&key["AttributeName"])).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Whose operation it is, by its tag in the document.
fn owner(tag: &str) -> &'static str {
    match tag {
        "auth" | "tenants" | "service_accounts" | "audit" | "meta" | "health" => "AuthFunction",
        "workflows" | "connections" | "connectors" => "WorkflowsFunction",
        "webhooks" => "WebhooksFunction",
        "runs" => "RunsFunction",
        "admin" => "AdminFunction",
        other => panic!("say which function serves the operations tagged {other}"),
    }
}

/// The functions by method and path of their routes.
fn routes() -> BTreeMap<(String, String), &'static str> {
    let mut routes = BTreeMap::new();
    for (name, resource) in template()["Resources"].as_mapping().unwrap() {
        for (_, event) in resource["Properties"]["Events"].as_mapping().into_iter().flatten() {
            if event["Type"] == "HttpApi" {
                let (method, path) = (text(&event["Properties"]["Method"]), text(&event["Properties"]["Path"]));
                let before = routes.insert((method.to_owned(), path.to_owned()), text(name));
                assert_eq!(before, None, "{method} {path} is routed twice");
            }
        }
    }
    routes
}

/// What `cargo lambda watch` serves, in Cargo.toml.
#[test]
fn one_function_alone_is_tried_at_the_same_routes() {
    let manifest = include_str!("../../Cargo.toml");
    let (_, watched) = manifest.split_once("[workspace.metadata.lambda.watch.router]\n").unwrap();
    let watched = watched.lines().take_while(|line| line.starts_with('"'));
    let watched: BTreeSet<_> =
        watched.map(|line| line.replace(['"', ' '], "").replace("{*rest}", "{proxy+}")).collect();
    let package = |function: &str| format!("tidegate-{}", function.trim_end_matches("Function").to_lowercase());
    // Its router takes no parameter beside a wildcard.
    let routes = routes();
    let deployed = routes.iter().filter(|((_, path), _)| path != "/api/workflows/{id}/deliveries");
    let deployed: BTreeSet<_> = deployed.map(|((_, path), function)| format!("{path}={}", package(function))).collect();
    assert_eq!(watched, deployed);
}

#[test]
fn every_operation_is_routed_to_its_function() {
    let routes = routes();
    let document: serde_json::Value = serde_json::from_str(include_str!("../../docs/openapi.json")).unwrap();
    let mut used = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let method = method.to_uppercase();
            let whole = (0..path.len()).rev().filter(|end| path.as_bytes()[*end] == b'/');
            let candidates =
                std::iter::once(path.clone()).chain(whole.map(|end| format!("{}/{{proxy+}}", &path[..end])));
            let found = candidates
                .flat_map(|path| [(method.clone(), path.clone()), ("ANY".to_owned(), path)])
                .find(|route| routes.contains_key(route))
                .unwrap_or_else(|| panic!("no route for {method} {path}"));
            let tag = operation["tags"][0].as_str().unwrap();
            assert_eq!(routes[&found], owner(tag), "{method} {path}");
            used.insert(found);
        }
    }
    let unused: Vec<_> = routes.keys().filter(|route| !used.contains(route)).collect();
    assert!(unused.is_empty(), "routes without an operation: {unused:?}");
}

/// CloudFormation can't add, so the sums stand in mappings.
#[test]
fn what_the_template_has_added_up_is_right() {
    let (parameters, mappings) = (&template()["Parameters"], &template()["Mappings"]);
    let sums = [("WorkerConcurrency", "ReservedConcurrency", 2), ("WorkerTimeout", "Visibility", 30)];
    for (parameter, mapping, more) in sums {
        let allowed = parameters[parameter]["AllowedValues"].as_sequence().unwrap();
        let sums = mappings[mapping]["Of"].as_mapping().unwrap();
        assert_eq!(sums.len(), allowed.len(), "{mapping}");
        for value in allowed {
            let value = value.as_u64().unwrap();
            assert_eq!(sums[value.to_string().as_str()].as_u64(), Some(value + more), "{mapping} of {value}");
        }
    }
}

#[test]
fn the_queues_keep_messages_as_long_as_the_code_counts_on() {
    let queue = |name: &str| &template()["Resources"][name]["Properties"];
    let days = |name: &str| queue(name)["MessageRetentionPeriod"].as_u64().unwrap() / 86_400;
    assert_eq!((days("RunQueue"), days("DeadLetterQueue")), (10, 14));
    assert_eq!(queue("RunQueue")["RedrivePolicy"]["maxReceiveCount"], 25);
    for name in ["RunQueue", "DeadLetterQueue"] {
        assert_eq!(queue(name)["SqsManagedSseEnabled"], true, "{name}");
    }
}

//! Prints the JSON Schema of a workflow's definition, as `docs/workflow.schema.json` holds it:
//! `cargo run -p tidegate-workflows --example schema > docs/workflow.schema.json`

#![expect(clippy::print_stdout, reason = "it prints")]

fn main() {
    println!("{:#}", tidegate_workflows::definition_schema());
}

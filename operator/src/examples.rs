//! What the operator builds of each file in `examples/`, and of fixtures, as a snapshot beside this one: a change of what goes to
//! the API server is a change of a file that somebody reads.
//!
//! `INSTA_UPDATE=always cargo test -p weirmq-operator snapshots` writes the snapshots again.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use kube::ResourceExt as _;
use serde::Deserialize as _;
use serde_json::Value;

use crate::broker;
use crate::kinds::{Broker, NameServer};
use crate::name_server;

#[test]
fn examples_become_what_stands_in_the_snapshots() {
    snapshots_of("../examples", "examples");
}

/// What no example has: `examples/fixtures` has resources for it.
#[test]
fn fixtures_become_what_stands_in_the_snapshots() {
    snapshots_of("src/examples/fixtures", "examples/fixtures");
}

fn snapshots_of(folder: &str, snapshots: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let files = folder.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let is_yaml = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "yaml");
    let mut files: Vec<_> = files.filter(is_yaml).collect();
    files.sort();
    assert!(files.len() >= 4, "{files:?}");
    let mut settings = insta::Settings::new();
    settings.set_snapshot_path(snapshots);
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        settings.bind(|| insta::assert_snapshot!(name, built(&text)));
    }
}

/// All objects that the resources of a file become, as YAML in the order in which they are made. Topics and
/// consumer groups become none.
fn built(resources: &str) -> String {
    let mut text = String::new();
    for document in serde_yaml::Deserializer::from_str(resources) {
        let mut resource = Value::deserialize(document).unwrap();
        // As the API server would.
        resource["metadata"]["namespace"] = "default".into();
        resource["metadata"]["uid"] = "00000000-0000-0000-0000-000000000000".into();
        let objects = match resource["kind"].as_str().unwrap() {
            "NameServer" => {
                let resource: NameServer = serde_json::from_value(resource).unwrap();
                name_server::objects(&resource, "weirmq:1")
            }
            "Broker" => {
                let resource: Broker = serde_json::from_value(resource).unwrap();
                let leaving = resource.annotations().get("test/leaving");
                broker::tests::made(&resource, leaving.map_or(0, |count| count.parse().unwrap()))
            }
            "Topic" | "ConsumerGroup" => continue,
            kind => {
                panic!("{kind} {} is of no kind that is declared", resource["metadata"]["name"])
            }
        };
        for object in objects {
            let yaml = serde_yaml::to_string(&object).unwrap();
            write!(text, "---\n{yaml}").unwrap();
        }
    }
    text
}

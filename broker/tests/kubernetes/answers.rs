//! The stand-in answers as the real API server does: code and body of each request that brokers
//! make, and of its refusals.
//!
//! `answers.json` has what a real one answered. `make kube` compares it with a real one again, and
//! with `$WEIRMQ_RECORD_ANSWERS` writes it.

use std::path::Path;

use http::Method;
use serde_json::{Value, json};

use crate::support::{GROUPS, LEASES, NAMESPACE, SLICES, Server, first, is_real, member, with_set};
use weirmq_authority::kubernetes::BrokerGroupStatus;

const JSON: &str = "application/json";
const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The server, and what it answered so far.
struct Dialogue {
    server: Server,
    /// Of the object that was seen last.
    uid: String,
    answers: Vec<Value>,
}

impl Dialogue {
    /// Sends a request, keeps what may be compared of the answer, and gives the whole.
    async fn ask(
        &mut self,
        what: &str,
        (method, path, media): (Method, &str, &str),
        body: &Value,
    ) -> Value {
        let (code, whole) = self.server.send(method, path, media, body).await;
        let mut answer = whole.clone();
        let is_invalid = answer["reason"] == "Invalid";
        if is_invalid {
            // The rules are worded and listed by the real one only.
            answer["message"] = json!("…");
            answer["details"]["causes"].take();
        }
        strip(&mut answer);
        let mut text = answer.to_string().replace(&self.server.group, "GROUP");
        if let Some(uid) = whole["metadata"]["uid"].as_str() {
            self.uid = uid.to_owned();
        }
        if !self.uid.is_empty() {
            text = text.replace(&self.uid, "UID");
        }
        let answer: Value = serde_json::from_str(&text).unwrap();
        self.answers.push(json!({ "request": what, "code": code, "body": answer }));
        whole
    }
}

/// Takes away what is another in each run, and nulls.
fn strip(value: &mut Value) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "resourceVersion", "creationTimestamp", "managedFields"] {
            metadata.remove(field);
        }
    }
    if let Value::Object(fields) = value {
        fields.retain(|_, value| !value.is_null());
        fields.values_mut().for_each(strip);
    }
}

fn of_version(mut body: Value, object: &Value) -> Value {
    for field in ["uid", "resourceVersion"] {
        body["metadata"][field] = object["metadata"][field].clone();
    }
    body
}

#[tokio::test]
async fn the_stand_in_answers_as_the_real_one() {
    let server = Server::any().await;
    let name = server.group.clone();
    let named = json!({ "name": name, "namespace": NAMESPACE });
    let group = format!("{GROUPS}/{name}");
    let status = format!("{group}/status?fieldManager=weir-broker&fieldValidation=Strict");
    let lease = format!("{LEASES}/{name}?fieldManager=weir-broker&fieldValidation=Strict");
    let slice =
        format!("{SLICES}/{name}?fieldManager=weir-broker&fieldValidation=Strict&force=true");
    let other_uid = json!("00000000-0000-4000-8000-000000000000");
    let mut dialogue = Dialogue { server, uid: String::new(), answers: Vec::new() };

    dialogue.ask("read a missing group", (Method::GET, &group, JSON), &Value::Null).await;
    dialogue.ask("read a missing lease", (Method::GET, &lease, JSON), &Value::Null).await;
    let unknown = "/apis/weirmq.io/v1alpha1/namespaces/default/unknowns/a";
    dialogue.ask("read of a missing kind", (Method::GET, unknown, JSON), &Value::Null).await;
    let body = |record| {
        let status = BrokerGroupStatus { record, write: "a".to_owned() };
        json!({
            "apiVersion": "weirmq.io/v1alpha1", "kind": "BrokerGroup", "metadata": named, "status": status,
        })
    };
    let mut conditional = body(first());
    conditional["metadata"]["resourceVersion"] = json!("1");
    dialogue.ask("swap a missing record", (Method::PUT, &status, JSON), &conditional).await;
    let patch =
        json!({ "metadata": { "resourceVersion": "1" }, "spec": { "holderIdentity": "0" } });
    dialogue.ask("swap a missing lease", (Method::PATCH, &lease, MERGE), &patch).await;

    dialogue.server = dialogue.server.with_group().await;
    let read = dialogue.ask("read a group", (Method::GET, &group, JSON), &Value::Null).await;
    let swap = of_version(body(first()), &read);
    let swapped = dialogue.ask("swap a record", (Method::PUT, &status, JSON), &swap).await;
    assert_ne!(swapped["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
    dialogue.ask("swap an old record", (Method::PUT, &status, JSON), &swap).await;
    let same = of_version(body(first()), &swapped);
    let unchanged = dialogue.ask("swap for the same", (Method::PUT, &status, JSON), &same).await;
    assert_eq!(unchanged["metadata"]["resourceVersion"], swapped["metadata"]["resourceVersion"]);
    let mut replaced = same.clone();
    replaced["metadata"]["uid"] = other_uid.clone();
    dialogue.ask("swap another's record", (Method::PUT, &status, JSON), &replaced).await;
    let fallen = of_version(body(weirmq_authority::Record::default()), &swapped);
    dialogue.ask("swap for an older record", (Method::PUT, &status, JSON), &fallen).await;
    let next = with_set(&first(), &[member(0, 7), member(1, u64::MAX)]);
    let next = of_version(body(next), &swapped);
    dialogue.ask("swap for a larger set", (Method::PUT, &status, JSON), &next).await;

    let read = dialogue.ask("read a lease", (Method::GET, &lease, JSON), &Value::Null).await;
    let taken = json!({
        "metadata": { "annotations": { "weirmq.io/renewals": "1" } },
        "spec": {
            "holderIdentity": "0-0000000000000007", "renewTime": "2026-11-27T13:30:00.123456Z",
            "acquireTime": "2026-11-27T13:30:00.123456Z", "leaseTransitions": 1,
        },
    });
    let take = of_version(taken, &read);
    let swapped = dialogue.ask("take a lease", (Method::PATCH, &lease, MERGE), &take).await;
    assert_ne!(swapped["metadata"]["resourceVersion"], read["metadata"]["resourceVersion"]);
    dialogue.ask("take an old lease", (Method::PATCH, &lease, MERGE), &take).await;
    let mut replaced = of_version(take.clone(), &swapped);
    replaced["metadata"]["uid"] = other_uid;
    dialogue.ask("take another's lease", (Method::PATCH, &lease, MERGE), &replaced).await;
    let free = json!({
        "metadata": { "annotations": { "weirmq.io/renewals": "2" } },
        "spec": { "holderIdentity": null, "renewTime": "2026-11-27T13:30:01.000000Z" },
    });
    let free = of_version(free, &swapped);
    dialogue.ask("give a lease back", (Method::PATCH, &lease, MERGE), &free).await;

    let endpoint = |address: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": name, "namespace": NAMESPACE,
                "labels": { "kubernetes.io/service-name": "s" }, "annotations": { "weirmq.io/epoch": "1" },
            },
            "addressType": "IPv4",
            "endpoints": [{ "addresses": [address], "conditions": { "ready": true } }],
            "ports": [{ "name": "remoting", "port": 10911, "protocol": "TCP" }],
        })
    };
    dialogue.ask("read a missing endpoint", (Method::GET, &slice, JSON), &Value::Null).await;
    let here = endpoint("10.1.2.3");
    let made = dialogue.ask("make an endpoint", (Method::PATCH, &slice, APPLY), &here).await;
    let again = dialogue.ask("apply the same", (Method::PATCH, &slice, APPLY), &here).await;
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let mut there = endpoint("10.1.2.4");
    there["metadata"]["resourceVersion"] = made["metadata"]["resourceVersion"].clone();
    dialogue.ask("move an endpoint", (Method::PATCH, &slice, APPLY), &there).await;
    dialogue.ask("move an old endpoint", (Method::PATCH, &slice, APPLY), &there).await;
    let label = json!({ "metadata": { "labels": { "team": "orders" } } });
    let slice = slice.replace("&force=true", "");
    dialogue.ask("label an endpoint", (Method::PATCH, &slice, MERGE), &label).await;

    watches(&mut dialogue, &name).await;

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubernetes/answers.json");
    if is_real() && std::env::var_os("WEIRMQ_RECORD_ANSWERS").is_some() {
        let text = serde_json::to_string_pretty(&dialogue.answers).unwrap();
        std::fs::write(&path, format!("{text}\n")).unwrap();
    }
    let kept: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (answered, kept) in dialogue.answers.iter().zip(&kept) {
        assert_eq!(answered, kept);
    }
    assert_eq!(dialogue.answers.len(), kept.len());
}

/// What watches of the group give in one second.
async fn watches(dialogue: &mut Dialogue, name: &str) {
    let selector = format!("watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3D{name}");
    let from = [("from now", ""), ("from a version that is too old", "&resourceVersion=1")];
    for (what, from) in from {
        let path = format!("{GROUPS}?{selector}{from}");
        let request = http::Request::get(path).body(kube::client::Body::empty()).unwrap();
        let response = dialogue.server.client.send(request).await.unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect_bytes().await.unwrap();
        let lines = std::str::from_utf8(&body).unwrap().lines();
        let events = lines.map(|line| {
            let event: Value = serde_json::from_str(line).unwrap();
            let object = &event["object"];
            let code = object.get("code").cloned().unwrap_or_default();
            let reason = object.get("reason").cloned().unwrap_or_default();
            json!({ "type": event["type"], "kind": object["kind"], "code": code, "reason": reason })
        });
        let events: Vec<Value> = events.collect();
        dialogue
            .answers
            .push(json!({ "request": format!("watch {what}"), "code": code, "body": events }));
    }
}

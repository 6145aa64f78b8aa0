//! `weir crds`: the kinds that WeirMQ adds to Kubernetes.

use crate::output::{Format, Output};

/// Print the definitions of WeirMQ's kinds for Kubernetes
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  weir crds | kubectl apply --server-side -f -")]
pub(crate) struct CrdsArgs {}

pub(crate) fn run(_: CrdsArgs) -> anyhow::Result<()> {
    Ok(Output::new(Format::Text).line(definitions()?.trim_end())?)
}

/// One YAML document for each kind.
fn definitions() -> anyhow::Result<String> {
    let documents = weirmq_operator::kinds::definitions();
    let documents = documents.iter().map(serde_yaml::to_string);
    documents.map(|document| Ok(format!("---\n{}", document?))).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definitions_in_the_repository_are_what_is_printed() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../crds/weirmq.yaml");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let printed = super::definitions().unwrap();
        assert!(kept == printed, "crds/weirmq.yaml is not what `weir crds` prints: write it again");
    }

    #[test]
    fn each_definition_fits_into_the_annotation_that_kubectl_apply_keeps() {
        // The API server takes annotations of 256 KiB; beyond 100 KiB a kind is too large for people as well.
        for definition in weirmq_operator::kinds::definitions() {
            let (name, text) = (definition.metadata.name, serde_json::to_string(&definition.spec));
            let bytes = text.unwrap().len();
            assert!(bytes < 100 << 10, "{name:?} is {bytes} bytes long");
        }
    }
}

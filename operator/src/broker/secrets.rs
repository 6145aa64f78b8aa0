//! Secrets that pods need and somebody else makes. One that is missing has to be known before a pod is
//! ended, because the next one would not start.

use super::Round;
use super::observe::GroupView;
use crate::context::Error;

impl Round<'_> {
    /// The first Secret that the resource names and that is not there.
    ///
    /// Where every pod runs what it should nothing is asked: none of them is about to start.
    pub(super) async fn missing_secret(
        &self,
        views: &[GroupView],
    ) -> Result<Option<String>, Error> {
        let spec = &self.resource.spec;
        let certificates = spec.tls.iter().filter_map(|tls| Some(&tls.secret.as_ref()?.name));
        let names =
            certificates.chain(spec.pod.image_pull_secrets.iter().map(|secret| &secret.name));
        let mut pods = views.iter().flat_map(|view| &view.pods);
        let is_any_to_start = pods.any(|pod| !pod.is_ready || !pod.is_up_to_date);
        for name in names {
            if !self.children.has_secret(&self.namespace(), name, is_any_to_start).await? {
                return Ok(Some(name.clone()));
            }
        }
        Ok(None)
    }
}

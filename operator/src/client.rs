//! The client of the API server that the controllers share: it counts requests by metric, and lets
//! nothing be changed once this process may not be the one that acts any more.

use http::{Method, Request};
use kube::client::{Body, ClientBuilder};
use kube::{Client, Config};
use tower::BoxError;
use tower::filter::FilterLayer;

use crate::leader::Tenure;
use crate::metrics::Metrics;

/// Why a request was not sent.
#[derive(Debug, thiserror::Error)]
#[error("the lease of the operators was not renewed in time: nothing is changed")]
struct TenureOver;

/// # Errors
/// When `config` has no certificates or credentials that can be used.
pub(crate) fn client(
    config: Config,
    metrics: Metrics,
    tenure: Tenure,
) -> Result<Client, kube::Error> {
    let check = move |request: Request<Body>| -> Result<Request<Body>, BoxError> {
        let (method, resource) = asked(&request);
        // A process that was frozen wakes with requests that were decided upon long ago.
        if request.method() != Method::GET && tenure.is_over() {
            return Err(TenureOver.into());
        }
        metrics.requested(method, resource);
        Ok(request)
    };
    Ok(ClientBuilder::try_from(config)?.with_layer(&FilterLayer::new(check)).build())
}

/// The method, `WATCH` for a watch, and the kind's name in the path: `pods`, `brokers/status`.
fn asked<B>(request: &Request<B>) -> (&str, String) {
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query.split('&').any(|pair| matches!(pair, "watch=true" | "watch=1"));
    let method = if is_watch { "WATCH" } else { request.method().as_str() };
    let mut words: Vec<&str> = request.uri().path().split('/').skip(1).collect();
    // `/api/v1/…` or `/apis/GROUP/VERSION/…`, then perhaps `namespaces/NAMESPACE`.
    let head = if words.first() == Some(&"api") { 2 } else { 3 };
    words.drain(..head.min(words.len()));
    if words.first() == Some(&"namespaces") && words.len() > 2 {
        words.drain(..2);
    }
    let kind = words.first().copied().unwrap_or_default();
    let resource = match words.get(2) {
        Some(subresource) => format!("{kind}/{subresource}"),
        None => kind.to_owned(),
    };
    (method, resource)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart_by_method_and_kind() {
        for (method, path, wanted) in [
            ("GET", "/api/v1/pods?labelSelector=a&watch=true", ("WATCH", "pods")),
            ("GET", "/api/v1/namespaces/shop/pods/a", ("GET", "pods")),
            ("GET", "/api/v1/namespaces/shop", ("GET", "namespaces")),
            (
                "PATCH",
                "/apis/weirmq.io/v1alpha1/namespaces/shop/brokers/a/status?force=true",
                ("PATCH", "brokers/status"),
            ),
            ("GET", "/apis/apps/v1/statefulsets", ("GET", "statefulsets")),
            ("GET", "/", ("GET", "")),
        ] {
            let request = Request::builder().method(method).uri(path).body(()).unwrap();
            let (method, resource) = asked(&request);
            assert_eq!((method, resource.as_str()), wanted, "{path}");
        }
    }
}

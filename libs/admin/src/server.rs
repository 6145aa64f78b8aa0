//! The HTTP side.

use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Admin;
use crate::health::Verdict;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const ENDPOINTS: &str = "this is the admin port of WeirMQ; it serves:\n  \
    /livez /readyz /startupz   health (?verbose lists the checks)\n  \
    /safe-to-restart           whether a restart would stop anything, or the reasons\n  \
    /config                    which configuration is in effect\n  \
    /version                   what this build is\n  \
    /metrics                   OpenMetrics\n";
/// How long answers that are under way may take at shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Serves `admin` on `listener` until `shutdown` is cancelled.
///
/// Cancel it last: probes should see `/readyz` fail while the roles drain.
pub async fn serve(listener: TcpListener, admin: Admin, shutdown: CancellationToken) {
    let router = Router::new()
        .route("/", get(|| async { ENDPOINTS }))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/startupz", get(startupz))
        .route("/safe-to-restart", get(safe_to_restart))
        .route("/config", get(config))
        .route("/version", get(version))
        .route("/metrics", get(metrics))
        .fallback(not_found)
        .with_state(admin);
    let server =
        axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let drained = async {
        shutdown.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        ended = server => if let Err(error) = ended {
            tracing::warn!(%error, "admin port ended");
        },
        () = drained => {}
    }
}

async fn livez(State(admin): State<Admin>, query: RawQuery) -> Response {
    probe(admin.health().liveness(), &query)
}

async fn readyz(State(admin): State<Admin>, query: RawQuery) -> Response {
    probe(admin.health().readiness(), &query)
}

async fn startupz(State(admin): State<Admin>, query: RawQuery) -> Response {
    probe(admin.health().startup(), &query)
}

fn probe(verdict: Verdict, RawQuery(query): &RawQuery) -> Response {
    let is_verbose = query
        .as_deref()
        .unwrap_or_default()
        .split('&')
        .any(|part| part.split_once('=').map_or(part, |(key, _)| key) == "verbose");
    let status = if verdict.passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, if is_verbose { verdict.details } else { verdict.summary }).into_response()
}

/// 200 and `{"safe":true,…}`, or 409 and the reasons why not.
async fn safe_to_restart(State(admin): State<Admin>) -> Response {
    let reasons = admin.reasons_not_to_restart();
    let safe = reasons.is_empty();
    let status = if safe { StatusCode::OK } else { StatusCode::CONFLICT };
    (status, axum::Json(serde_json::json!({ "safe": safe, "reasons": reasons }))).into_response()
}

async fn config(State(admin): State<Admin>) -> Response {
    match admin.configuration() {
        Some(configuration) => axum::Json(configuration).into_response(),
        None => not_found().await,
    }
}

async fn version() -> Response {
    axum::Json(serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "commit": option_env!("WEIRMQ_COMMIT"),
        "rustc": env!("WEIRMQ_RUSTC"),
    }))
    .into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    ([(header::CONTENT_TYPE, OPEN_METRICS)], admin.encode_metrics()).into_response()
}

async fn not_found() -> Response {
    (StatusCode::NOT_FOUND, ENDPOINTS).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    /// Asks like a probe does; the answer is the status line, the headers and the body.
    async fn ask(address: std::net::SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn probes_metrics_and_version_are_answered_until_shutdown() {
        let admin = Admin::new();
        let requests = Counter::<u64>::default();
        admin.metrics(|registry| registry.register("sample", "A sample", requests.clone()));
        requests.inc();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, admin.clone(), shutdown.clone()));

        assert!(ask(address, "/safe-to-restart").await.ends_with(r#"{"reasons":[],"safe":true}"#));
        admin.ask_before_restart(|| vec!["busy".to_owned()]);
        let unsafe_now = ask(address, "/safe-to-restart").await;
        assert!(unsafe_now.starts_with("HTTP/1.1 409") && unsafe_now.contains(r#"["busy"]"#));
        assert!(ask(address, "/config").await.starts_with("HTTP/1.1 404"));
        admin.show_configuration(|| serde_json::json!({ "error": null }));
        assert!(ask(address, "/config").await.ends_with(r#"{"error":null}"#));
        let check = admin.check("namesrv");
        let starting = ask(address, "/readyz").await;
        assert!(starting.starts_with("HTTP/1.1 503") && starting.contains("namesrv starting"));
        assert!(ask(address, "/startupz").await.starts_with("HTTP/1.1 503"));
        assert!(ask(address, "/livez").await.starts_with("HTTP/1.1 200"));
        check.ok();
        let ready = ask(address, "/readyz?verbose").await;
        assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("[+]namesrv ok"), "{ready}");
        admin.shutting_down();
        let leaving = ask(address, "/readyz?verbose=1").await;
        assert!(leaving.starts_with("HTTP/1.1 503") && leaving.contains("shutting down"));

        let metrics = ask(address, "/metrics").await;
        assert!(metrics.contains(OPEN_METRICS) && metrics.ends_with("# EOF\n"), "{metrics}");
        assert!(metrics.contains("sample_total 1"));
        for name in ["cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"]
        {
            let line = metrics.lines().find(|line| line.starts_with(&format!("process_{name} ")));
            let value: f64 = line
                .unwrap_or_else(|| panic!("{name}"))
                .split(' ')
                .nth(1)
                .unwrap()
                .parse()
                .unwrap();
            assert!(value >= 0.0, "{name}");
        }
        let version = ask(address, "/version").await;
        assert!(version.contains(r#""rustc":"rustc "#) && version.contains(r#""commit":"#));
        let unknown = ask(address, "/metricz").await;
        assert!(unknown.starts_with("HTTP/1.1 404") && unknown.contains("/metrics"));

        shutdown.cancel();
        server.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }
}

//! The KV configuration: codes 100, 101, 102 and 219. Changes wait for the disk on a task.

use std::sync::Arc;

use weirmq_remoting::command::Command;
use weirmq_remoting::header::{Header, KvKeyHeader, KvValueHeader, NamespaceHeader, PutKvHeader};

use super::{Handled, Origin, RequestError, quoted, respond_later, write_header, write_success};

/// Code 100.
pub(super) fn put(origin: &Origin<'_>, request: &Command<'_>) -> Result<Handled, RequestError> {
    let PutKvHeader { namespace, key, value } = PutKvHeader::decode(&request.ext)?;
    let (namespace, key, value) = (namespace.into_owned(), key.into_owned(), value.into_owned());
    let turn = turn(origin)?;
    let server = origin.server.clone();
    respond_later(origin, request, async move {
        let _turn = turn;
        server.kv_config.put(&namespace, &key, &value).await?;
        tracing::info!(namespace, key, value = quoted(&value), "KV entry set");
        Ok(())
    });
    Ok(Handled::Later)
}

/// Code 102. Succeeds when there is no such entry.
pub(super) fn delete(origin: &Origin<'_>, request: &Command<'_>) -> Result<Handled, RequestError> {
    let KvKeyHeader { namespace, key } = KvKeyHeader::decode(&request.ext)?;
    let (namespace, key) = (namespace.into_owned(), key.into_owned());
    let turn = turn(origin)?;
    let server = origin.server.clone();
    respond_later(origin, request, async move {
        let _turn = turn;
        server.kv_config.delete(&namespace, &key).await?;
        tracing::info!(namespace = quoted(&namespace), key = quoted(&key), "KV entry deleted");
        Ok(())
    });
    Ok(Handled::Later)
}

/// A place among the changes that wait for the disk.
fn turn(origin: &Origin<'_>) -> Result<tokio::sync::OwnedSemaphorePermit, RequestError> {
    Arc::clone(&origin.server.kv_changes).try_acquire_owned().map_err(|_| RequestError::KvBusy)
}

/// Code 101.
pub(super) fn get(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let KvKeyHeader { namespace, key } = KvKeyHeader::decode(&request.ext)?;
    origin.server.kv_config.read(&namespace, &key, |value| match value {
        Some(value) => {
            let header = KvValueHeader { value: Some(value.into()) };
            write_header(&request.head, &header, b"", out);
            Ok(())
        }
        None => {
            Err(RequestError::KvNotFound { namespace: quoted(&namespace), key: Some(quoted(&key)) })
        }
    })
}

/// Code 219.
pub(super) fn list(
    origin: &Origin<'_>,
    request: &Command<'_>,
    out: &mut Vec<u8>,
) -> Result<(), RequestError> {
    let NamespaceHeader { namespace } = NamespaceHeader::decode(&request.ext)?;
    let Some(body) = origin.server.kv_config.list(&namespace) else {
        return Err(RequestError::KvNotFound { namespace: quoted(&namespace), key: None });
    };
    write_success(&request.head, &body, out);
    Ok(())
}

//! The NameServers' key-value configuration.

use std::borrow::Cow;
use std::collections::BTreeMap;

use weirmq_remoting::body::KVTable;
use weirmq_remoting::codes::{Code, RequestCode, ResponseCode};
use weirmq_remoting::command::HeaderWriter;
use weirmq_remoting::header::{
    Header as _, KvKeyHeader, KvValueHeader, NamespaceHeader, PutKvHeader,
};

use super::Admin;
use crate::ClientError;

impl Admin {
    /// Sets a value at every NameServer (code 100).
    pub async fn put_kv(&self, namespace: &str, key: &str, value: &str) -> Result<(), ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            PutKvHeader {
                namespace: Cow::from(namespace),
                key: Cow::from(key),
                value: Cow::from(value),
            }
            .encode(writer);
        };
        self.for_all_name_servers(RequestCode::PutKvConfig, fields, |_| Ok(())).await?;
        Ok(())
    }

    /// Reads a value (code 101); `None` when there is none.
    pub async fn kv(&self, namespace: &str, key: &str) -> Result<Option<String>, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            KvKeyHeader { namespace: Cow::from(namespace), key: Cow::from(key) }.encode(writer);
        };
        let core = &self.client.core;
        let reply = core.call_name_server(RequestCode::GetKvConfig, fields, b"").await?.success();
        match reply {
            Ok(reply) => {
                let header: KvValueHeader<'_> = reply.header()?;
                Ok(header.value.map(Cow::into_owned))
            }
            Err(ClientError::Refused {
                code: Code::Known(ResponseCode::QueryNotFound), ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes a value at every NameServer (code 102).
    pub async fn delete_kv(&self, namespace: &str, key: &str) -> Result<(), ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            KvKeyHeader { namespace: Cow::from(namespace), key: Cow::from(key) }.encode(writer);
        };
        self.for_all_name_servers(RequestCode::DeleteKvConfig, fields, |_| Ok(())).await?;
        Ok(())
    }

    /// All keys and values of a namespace (code 219); empty when it does not exist.
    pub async fn kv_list(&self, namespace: &str) -> Result<BTreeMap<String, String>, ClientError> {
        let fields = |writer: &mut HeaderWriter<'_>| {
            NamespaceHeader { namespace: Cow::from(namespace) }.encode(writer);
        };
        let core = &self.client.core;
        let reply = core.call_name_server(RequestCode::GetKvListByNamespace, fields, b"").await?;
        match reply.success() {
            Ok(reply) => Ok(reply.body_or_default::<KVTable>()?.table),
            Err(ClientError::Refused {
                code: Code::Known(ResponseCode::QueryNotFound), ..
            }) => Ok(BTreeMap::new()),
            Err(error) => Err(error),
        }
    }
}

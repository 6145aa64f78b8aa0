//! Clients of the admin protocol, one for all Brokers at the same NameServers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use weirmq_client::{Admin, Client, ClientConfig, ClientError};

/// By NameServers, `host:port` parted by `;`.
#[derive(Default)]
pub(crate) struct Admins(Mutex<BTreeMap<String, (Client, Arc<Admin>)>>);

impl Admins {
    /// The client of these NameServers. Where that is a new one, those end that are not among the `named` ones:
    /// each has tasks and connections of its own.
    ///
    /// # Errors
    /// Where no client can be made of that text.
    pub(crate) fn get(
        &self,
        name_servers: &str,
        named: impl FnOnce() -> BTreeSet<String>,
    ) -> Result<Arc<Admin>, ClientError> {
        let mut all = self.0.lock();
        if let Some((_, admin)) = all.get(name_servers) {
            return Ok(admin.clone());
        }
        let client = Client::start(ClientConfig::new(name_servers))?;
        let named = named();
        all.retain(|known, (client, _)| {
            let is_named = named.contains(known);
            if !is_named {
                let client = client.clone();
                tokio::spawn(async move { client.shutdown().await });
            }
            is_named
        });
        let admin = Arc::new(Admin::new(&client));
        all.insert(name_servers.to_owned(), (client, admin.clone()));
        Ok(admin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_client_ends_that_no_broker_names_any_more() {
        let admins = Admins::default();
        let get = |name_servers: &str, named: &[&str]| {
            let named = named.iter().map(|name| (*name).to_owned()).collect();
            admins.get(name_servers, || named).unwrap()
        };
        let first = get("192.0.2.1:9876", &["192.0.2.1:9876"]);
        let second = get("192.0.2.2:9876", &["192.0.2.1:9876", "192.0.2.2:9876"]);
        assert!(Arc::ptr_eq(&first, &get("192.0.2.1:9876", &[])), "nothing is new");
        get("192.0.2.3:9876", &["192.0.2.2:9876", "192.0.2.3:9876"]);
        assert!(Arc::ptr_eq(&second, &get("192.0.2.2:9876", &[])));
        let left: Vec<String> = admins.0.lock().keys().cloned().collect();
        assert_eq!(left, ["192.0.2.2:9876", "192.0.2.3:9876"]);
    }
}

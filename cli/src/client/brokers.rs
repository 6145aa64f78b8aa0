//! Which brokers there are, and which of them a command is about.

use std::collections::BTreeSet;

use anyhow::bail;
use weirmq_client::Admin;

use super::MASTER_ID;
use crate::cmd::place::Place;
use crate::exit::Failure;

/// One broker of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    pub(crate) cluster: String,
    pub(crate) broker: String,
    /// 0 for the master.
    pub(crate) id: i64,
    pub(crate) address: String,
}

/// Every registered broker, masters and slaves, sorted by cluster, name and id.
pub(crate) struct Brokers(pub(crate) Vec<BrokerAddress>);

impl Brokers {
    pub(crate) async fn find(admin: &Admin) -> anyhow::Result<Self> {
        let info = admin.cluster_info().await?;
        let mut brokers = Vec::new();
        for (cluster, names) in &info.cluster_addr_table {
            for data in names.iter().filter_map(|name| info.broker_addr_table.get(name)) {
                for (id, address) in &data.broker_addrs {
                    brokers.push(BrokerAddress {
                        cluster: cluster.clone(),
                        broker: data.broker_name.clone(),
                        id: *id,
                        address: address.clone(),
                    });
                }
            }
        }
        Ok(Self(brokers))
    }

    /// The masters at `place`; at least one.
    pub(crate) fn masters(mut self, place: &Place) -> anyhow::Result<Vec<BrokerAddress>> {
        self.0.retain(|broker| broker.id == MASTER_ID);
        if self.0.is_empty() {
            bail!("no broker is registered at the NameServer; start one with `weir broker -n …`");
        }
        keep(&mut self.0, "cluster", place.cluster.as_deref(), |master| &master.cluster)?;
        keep(&mut self.0, "broker", place.broker.as_deref(), |master| &master.broker)?;
        Ok(self.0)
    }
}

/// Keeps the masters whose `kind` is called `wanted`, if that is given.
fn keep(
    masters: &mut Vec<BrokerAddress>,
    kind: &str,
    wanted: Option<&str>,
    name: fn(&BrokerAddress) -> &String,
) -> anyhow::Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    if masters.iter().any(|master| name(master) == wanted) {
        masters.retain(|master| name(master) == wanted);
        return Ok(());
    }
    let known: BTreeSet<_> = masters.iter().map(|master| name(master).as_str()).collect();
    let known: Vec<_> = known.into_iter().collect();
    let problem =
        format!("no {kind} with a master is called {wanted}; there is {}", known.join(", "));
    Err(Failure::NotFound(problem).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn brokers() -> Brokers {
        let broker = |broker: &str, id| BrokerAddress {
            cluster: "c".into(),
            broker: broker.into(),
            id,
            address: format!("{broker}:{id}"),
        };
        Brokers(vec![broker("a", 0), broker("a", 1), broker("b", 0)])
    }

    #[test]
    fn a_place_is_narrowed_and_a_wrong_name_shows_the_known_ones() {
        assert_eq!(brokers().masters(&Place::default()).unwrap().len(), 2);
        let only_b = Place { broker: Some("b".into()), ..Place::default() };
        assert_eq!(brokers().masters(&only_b).unwrap()[0].address, "b:0");
        let wrong = Place { broker: Some("x".into()), ..Place::default() };
        let problem = brokers().masters(&wrong).unwrap_err().to_string();
        assert_eq!(problem, "no broker with a master is called x; there is a, b");
        assert!(Brokers(vec![]).masters(&Place::default()).is_err());
    }
}

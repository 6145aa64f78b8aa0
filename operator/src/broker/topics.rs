//! A new group gets the topics and consumer groups that the others have.

use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::events::EventType;
use weirmq_client::{Admin, ClientError};

use super::observe::GroupView;
use super::{Round, build};

/// How long a group may take to be told everything; the next round goes on where it stopped.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Round<'_> {
    /// Tells groups that do not have them yet.
    pub(super) async fn hand_out_topics(&mut self, views: &[GroupView]) {
        let known = self.resource.status.as_ref().map_or(&[][..], |status| &status.groups[..]);
        let has_topics = |view: &&GroupView| {
            known.iter().any(|group| group.name == view.name && group.has_topics)
        };
        let source = views.iter().filter(|view| !view.is_draining).find(has_topics);
        for view in views.iter().filter(|view| !has_topics(view) && !view.is_draining) {
            let Some(to) = view.master_address() else { continue };
            let Some(source) = source else {
                // Nothing is known, of a new Broker or because its status was lost. The first group
                // never leaves, so it has everything that there is.
                if view.name == build::group_name(&self.resource.name_any(), 0) {
                    self.findings.with_topics.push(view.name.clone());
                    return;
                }
                self.findings
                    .wait(&view.name, "gets its topics once the first group serves".to_owned());
                continue;
            };
            let Some(from) = source.master_address() else {
                self.findings
                    .wait(&view.name, format!("gets its topics once {} serves", source.name));
                continue;
            };
            let admin = match self.context.admin(&self.client_name_servers()) {
                Ok(admin) => admin,
                Err(error) => return self.findings.wait(&view.name, error.to_string()),
            };
            let copied =
                tokio::time::timeout(TIMEOUT, copy(&admin, &source.name, &from, &to)).await;
            match copied {
                Ok(Ok((groups, topics))) => {
                    let note = format!(
                        "{} got {topics} topics and {groups} consumer groups of {}",
                        view.name, source.name
                    );
                    self.event(EventType::Normal, "TopicsHandedOut", note).await;
                    self.findings.with_topics.push(view.name.clone());
                    // What was seen of the others is old by now.
                    return;
                }
                Ok(Err(error)) => {
                    self.findings
                        .wait(&view.name, format!("gets the topics of {}: {error}", source.name));
                }
                Err(_) => {
                    self.findings.wait(&view.name, format!("gets the topics of {}", source.name))
                }
            }
        }
    }
}

/// Consumer groups first: a topic is consumed as soon as its route is known.
async fn copy(
    admin: &Admin,
    source: &str,
    from: &str,
    to: &str,
) -> Result<(usize, usize), ClientError> {
    let known = admin.groups(to).await?;
    let groups = admin.groups(from).await?;
    let new_groups = groups.values().filter(|group| !known.contains_key(&group.group_name));
    let mut count = (0, 0);
    for group in new_groups {
        admin.create_group_on(to, group).await?;
        count.0 += 1;
    }
    let known = admin.topic_configs(to).await?;
    let topics = admin.topic_configs(from).await?;
    // Every broker has a topic of its own name.
    let is_wanted = |name: &str| !known.contains_key(name) && name != source;
    for topic in topics.values().filter(|topic| is_wanted(&topic.topic_name)) {
        admin.create_topic_on(to, topic).await?;
        count.1 += 1;
    }
    Ok(count)
}

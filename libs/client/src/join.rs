//! Waiting for several futures at once, on the task that asks.

use std::future::Future;
use std::pin::Pin;
use std::task::Poll;

/// Runs all `futures` concurrently; their results come in the order of the futures.
///
/// Each wake-up polls all that are left, so this is for dozens of them, not thousands.
pub(crate) async fn join_all<F: Future>(futures: impl IntoIterator<Item = F>) -> Vec<F::Output> {
    enum Slot<F: Future> {
        Running(Pin<Box<F>>),
        Done(Option<F::Output>),
    }
    let mut slots: Vec<Slot<F>> =
        futures.into_iter().map(|future| Slot::Running(Box::pin(future))).collect();
    std::future::poll_fn(move |context| {
        let mut is_ready = true;
        for slot in &mut slots {
            if let Slot::Running(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *slot = Slot::Done(Some(output)),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        if !is_ready {
            return Poll::Pending;
        }
        let outputs = slots.iter_mut().filter_map(|slot| match slot {
            Slot::Running(_) => None,
            Slot::Done(output) => output.take(),
        });
        Poll::Ready(outputs.collect())
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::join_all;

    #[tokio::test]
    async fn results_come_in_order_whoever_is_first() {
        let (first, second) = tokio::sync::oneshot::channel::<u8>();
        let mut first = Some(first);
        let mut second = Some(second);
        let futures: Vec<Pin2> = vec![
            Box::pin({
                let second = second.take();
                async move { second.unwrap().await.unwrap() }
            }),
            Box::pin({
                let first = first.take();
                async move { first.unwrap().send(1).map(|()| 2).unwrap() }
            }),
        ];
        assert_eq!(join_all(futures).await, [1, 2]);
        assert!(join_all(Vec::<Pin2>::new()).await.is_empty());
    }

    type Pin2 = std::pin::Pin<Box<dyn Future<Output = u8>>>;
}

//! A fact with one owner: who owns it publishes, others read snapshots and wait for changes.
//!
//! ```text
//!  task ── Owner::set, change ──▶ Arc<T> ──▶ View::now      at once, without a lock held
//!                                      └──▶ View::find     when it is as somebody waits for
//! ```

use std::sync::Arc;

use tokio::sync::watch;

/// The owner's end: it alone changes the fact.
#[derive(Debug)]
pub struct Owner<T>(watch::Sender<Arc<T>>);

/// A reader's end. Clones read the same fact.
#[derive(Debug)]
pub struct View<T>(watch::Receiver<Arc<T>>);

impl<T> Clone for View<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

/// The owner has gone, and with it whoever could change the fact.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the daemon is going down")]
pub struct Gone;

impl From<Gone> for crate::CallError {
    fn from(gone: Gone) -> Self {
        Self::busy(gone.to_string())
    }
}

impl<T> Owner<T> {
    /// A fact as it is at first.
    pub fn new(first: T) -> Self {
        Self(watch::Sender::new(Arc::new(first)))
    }

    /// A reader.
    pub fn view(&self) -> View<T> {
        View(self.0.subscribe())
    }

    /// The fact as it is.
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }

    /// Publishes it anew; readers hear of it only if it is otherwise.
    pub fn set(&self, new: T) -> bool
    where
        T: PartialEq,
    {
        self.0.send_if_modified(|old| {
            let changed = **old != new;
            if changed {
                *old = Arc::new(new);
            }
            changed
        })
    }

    /// Publishes it anew, be it otherwise or not.
    pub fn put(&self, new: T) {
        self.0.send_replace(Arc::new(new));
    }

    /// Waits until nobody reads any more.
    pub async fn unread(&self) {
        self.0.closed().await;
    }
}

impl<T> View<T> {
    /// The fact as it is.
    pub fn now(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits until the fact is so, and gives it.
    pub async fn until(&self, so: impl FnMut(&T) -> bool) -> Result<Arc<T>, Gone> {
        let (mut receiver, mut so) = (self.0.clone(), so);
        let fact = receiver.wait_for(|fact| so(fact)).await.map_err(|_| Gone)?;
        Ok(Arc::clone(&fact))
    }
}

impl<T: Clone> View<Option<T>> {
    /// Waits until there is one, and gives it.
    pub async fn find(&self) -> Result<T, Gone> {
        let fact = self.until(Option::is_some).await?;
        Option::clone(&fact).ok_or(Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readers_wait_for_what_the_owner_publishes() {
        let owner = Owner::new(None::<u32>);
        let (view, early) = (owner.view(), owner.view());
        let waiting = tokio::spawn(async move { early.find().await });
        assert!(owner.set(Some(7)) && !owner.set(Some(7)));
        assert_eq!(waiting.await.unwrap(), Ok(7));
        assert_eq!(*view.now(), Some(7));
        let later = tokio::spawn(async move { view.until(|n| *n == Some(8)).await });
        tokio::task::yield_now().await;
        drop(owner);
        assert_eq!(later.await.unwrap(), Err(Gone));
    }

    #[tokio::test]
    async fn a_snapshot_stays_while_the_fact_goes_on() {
        let owner = Owner::new(1);
        let view = owner.view();
        let before = view.now();
        owner.put(2);
        owner.put(3);
        assert_eq!((*before, *view.now()), (1, 3));
        drop(view);
        owner.unread().await;
    }
}

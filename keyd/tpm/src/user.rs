//! Whom a call is for.

tokio::task_local! {
    static USER: Option<u32>;
}

/// Does `work` for a local user, or for keyd itself: its calls of the TPM take turns with those of others. What `work` spawns
/// is keyd's own, unless it is made so again.
pub async fn on_behalf_of<F: Future>(user: Option<u32>, work: F) -> F::Output {
    USER.scope(user, work).await
}

/// The user that the present task works for; none where that is keyd itself.
pub fn user() -> Option<u32> {
    USER.try_with(|user| *user).ok().flatten()
}

//! Messages that hold a secret: it is never shown, and wiped when they are dropped.

use std::fmt;

use keyd_core::Secret;

use crate::v1;

macro_rules! holds_secret {
    ($($message:ident.$field:ident)+) => { $(
        impl v1::$message {
            /// Takes the secret out. Whoever else holds its bytes, as the transport may, keeps them.
            pub fn take_secret(&mut self) -> Secret {
                Secret::new(std::mem::take(&mut self.$field).into())
            }
        }

        impl Drop for v1::$message {
            fn drop(&mut self) {
                drop(self.take_secret());
            }
        }

        impl fmt::Debug for v1::$message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message)).finish_non_exhaustive()
            }
        }
    )+ };
}

holds_secret! { ActivateCredentialResponse.secret DecapsulateResponse.shared_secret RestoreEscrowTerms.unlocked }

#[cfg(test)]
mod tests {
    use prost::bytes::Bytes;

    use super::*;

    #[test]
    fn messages_with_secrets_do_not_show_them() {
        let secret = Bytes::from_static(b"hunter2");
        let terms = v1::RestoreEscrowTerms { unlocked: secret.clone(), node: "n".to_owned(), dry_run: true };
        let part = v1::restore_escrow_request::Part::Terms(terms);
        let shown = [
            format!("{:?}", v1::ActivateCredentialResponse { secret: secret.clone() }),
            format!("{:?}", v1::DecapsulateResponse { shared_secret: secret, fingerprint: Bytes::new() }),
            format!("{:?}", v1::RestoreEscrowRequest { part: Some(part) }),
        ];
        for shown in shown {
            assert!(!shown.contains("hunter2") && shown.contains(".."), "{shown}");
        }
    }

    #[test]
    fn a_secret_is_taken_once() {
        let mut message = v1::ActivateCredentialResponse { secret: Bytes::from_static(b"hunter2") };
        assert_eq!(message.take_secret().expose(), b"hunter2");
        assert!(message.secret.is_empty() && message.take_secret().is_empty());
    }
}

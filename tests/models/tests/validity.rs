use loom::future::block_on;
use models::{CancellationToken, Ended, Verified};

use crate::common::{explore, start};

#[test]
fn a_renewed_validity_ends_with_the_new_token() {
    explore([true], || {
        let revocation = CancellationToken::new();
        let open = Verified::new("alice").revoked_by(CancellationToken::new());
        let refreshed = Verified::new("alice").revoked_by(revocation.clone());
        let validity = open.validity().clone();
        let connection = start(move || block_on(validity.ended()));
        let renewed = open.validity().renew(refreshed.validity());
        revocation.cancel();
        assert_eq!(connection.join().unwrap(), Ended::Revoked);
        renewed
    });
}

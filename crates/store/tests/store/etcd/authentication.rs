//! A cluster that asks who we are.

use serde_json::json;
use tier0_store::{AuthorityStore, StoreError, Swapped};

use super::chain;
use super::cluster::Cluster;
use crate::sample::{after, first};

#[test]
fn users_of_the_cluster_are_asked_for_their_password() {
    let Some(cluster) = Cluster::start("users_of_the_cluster_are_asked_for_their_password", 1)
    else {
        return;
    };
    let address = cluster.addresses().remove(0);
    let ask = |path: &str, body| cluster.ask(&address, path, &body).unwrap();
    for user in ["root", "tier0", "stranger"] {
        ask("auth/user/add", json!({"name": user, "password": format!("{user}'s")}));
        ask("auth/role/add", json!({"name": user}));
        ask("auth/user/grant", json!({"user": user, "role": user}));
    }
    // All keys of the stack: "/tier0/auth/" up to "/tier0/auth0".
    let permission = json!({"permType": "READWRITE", "key": "L3RpZXIwL2F1dGgv", "range_end": "L3RpZXIwL2F1dGgw"});
    ask("auth/role/grant", json!({"name": "tier0", "perm": permission}));
    // Before anybody is asked, a password does no harm.
    let mut store = cluster.store_as("auth", "tier0", "tier0's");
    assert_eq!(store.load().unwrap(), None);
    ask("auth/enable", json!({}));

    assert_eq!(store.create(&first()).unwrap(), Swapped::Stored);
    let mut again = cluster.store_as("auth", "tier0", "tier0's");
    assert_eq!(again.load().unwrap(), Some(first()));
    let refused = |mut store: tier0_store::Etcd, why: &str| {
        let error = store.load().unwrap_err();
        assert!(matches!(error, StoreError::Access { .. }), "{error}");
        assert!(chain(&error).contains(why), "{}", chain(&error));
        assert!(chain(&error).contains(&address), "{}", chain(&error));
        let error = store.swap(&first().heard(), &after(&first())).unwrap_err();
        assert!(matches!(error, StoreError::Access { .. }), "{error}");
    };
    refused(cluster.store_as("auth", "tier0", "wrong"), "invalid user ID or password");
    refused(cluster.store_as("auth", "stranger", "stranger's"), "permission denied");
    refused(cluster.store("auth"), "none is configured");

    // A member that was started again has forgotten whom it let in.
    cluster.kill(0);
    cluster.start_again(0);
    let mut newest = None;
    for _ in 0..20 {
        newest = again.load().ok().flatten();
        if newest.is_some() {
            break;
        }
    }
    assert_eq!(newest, Some(first()));
    assert_eq!(again.swap(&first().heard(), &after(&first())).unwrap(), Swapped::Stored);
}

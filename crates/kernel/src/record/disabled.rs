//! Who is disabled: one row for each principal, and one for a tenant as a whole.

use serde::{Deserialize, Serialize};

use super::key::all;
use super::kind::Kind;
use crate::id::{Key, push_part};
use crate::time::Millis;

/// Somebody who may do nothing until he is enabled again, whatever policies and credentials say.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Disabled {
    /// Of which tenant. Its row lies with the tenant's keys.
    pub tenant: String,
    /// The id of the principal, as policies know it; none: the tenant as a whole.
    pub principal: Option<String>,
    /// Since when.
    pub at: Millis,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// All that are disabled in a tenant, and the tenant itself.
#[must_use]
pub fn disabled_of(tenant: &str) -> Key {
    let mut key = all(Kind::Disabled).to_vec();
    push_part(&mut key, tenant.as_bytes());
    key.into()
}

/// Shard-wide, tenant, principal → [`Disabled`]. No principal is called nothing: that is the row of the tenant.
#[must_use]
pub fn row(tenant: &str, principal: Option<&str>) -> Key {
    let mut key = disabled_of(tenant).to_vec();
    push_part(&mut key, principal.unwrap_or_default().as_bytes());
    key.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_row_is_read_back_and_no_two_share_a_key(tenants in prop::array::uniform2("[a-z:]{0,4}"), principals in prop::array::uniform2(prop::option::of("[a-z:]{1,4}"))) {
            let [a, b] = [0, 1].map(|n: usize| Disabled { tenant: tenants[n].clone(), principal: principals[n].clone(), at: Millis(1), by: "local".to_owned(), reason: "gone".to_owned() });
            prop_assert_eq!(&wire::decode::<Disabled>("disabled principal", &wire::encode(&a)).unwrap(), &a);
            prop_assert_eq!(row(&a.tenant, a.principal.as_deref()) == row(&b.tenant, b.principal.as_deref()), a == b);
            prop_assert!(row(&a.tenant, a.principal.as_deref()).starts_with(&disabled_of(&a.tenant)));
        }
    }
}

//! A token that knows algorithms by its vendor's numbers, as those older than PKCS#11 3.2 do, made of one that knows
//! them by the standard's.
//!
//! Numbers change places: what the caller knows by a vendor's, the real module knows by the standard's, and the
//! standard's are to the real module what a vendor's unknown ones are, so that it refuses them in its own way.

#![allow(non_snake_case, reason = "PKCS#11's names")]

use std::sync::OnceLock;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_PTR, CK_BYTE_PTR, CK_FUNCTION_LIST_3_2, CK_MECHANISM, CK_MECHANISM_INFO_PTR,
    CK_MECHANISM_PTR, CK_MECHANISM_TYPE, CK_MECHANISM_TYPE_PTR, CK_OBJECT_HANDLE, CK_OBJECT_HANDLE_PTR,
    CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG, CK_ULONG_PTR, CKA_KEY_TYPE, CKR_FUNCTION_NOT_SUPPORTED,
    CKR_OK,
};

/// Name the numbers to the shim.
const MECHANISMS: &str = "FAULT_SHIM_MECHANISMS";
const KEY_TYPES: &str = "FAULT_SHIM_KEY_TYPES";
const ATTRIBUTES: &str = "FAULT_SHIM_ATTRIBUTES";

/// The numbers that a token knows by others: pairs of the standard's and the vendor's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renumbering {
    /// Mechanisms, CKM_.
    pub mechanisms: Vec<(CK_ULONG, CK_ULONG)>,
    /// Key types, CKK_.
    pub key_types: Vec<(CK_ULONG, CK_ULONG)>,
    /// Attributes, CKA_, in the templates of key pairs.
    pub attributes: Vec<(CK_ULONG, CK_ULONG)>,
}

impl Renumbering {
    /// What a worker needs in its environment beside [`crate::Faults::environment`].
    pub fn environment(&self) -> [(String, String); 3] {
        [(MECHANISMS, &self.mechanisms), (KEY_TYPES, &self.key_types), (ATTRIBUTES, &self.attributes)]
            .map(|(name, pairs)| (name.to_owned(), write(pairs)))
    }

    fn from_environment() -> Self {
        let pairs = |name| std::env::var(name).map(|text| read(&text)).unwrap_or_default();
        Self { mechanisms: pairs(MECHANISMS), key_types: pairs(KEY_TYPES), attributes: pairs(ATTRIBUTES) }
    }

    /// A copy of a template in the other side's numbers. A value that changes is put into `key_type`.
    fn template(&self, template: &[CK_ATTRIBUTE], key_type: &mut CK_ULONG) -> Vec<CK_ATTRIBUTE> {
        let mut copy = template.to_vec();
        for attribute in &mut copy {
            if attribute.type_ == CKA_KEY_TYPE && !attribute.pValue.is_null() {
                // SAFETY: a key type is a CK_ULONG (PKCS#11 §4.7.2), which the caller need not have aligned.
                *key_type =
                    swap(&self.key_types, unsafe { attribute.pValue.cast::<CK_ULONG>().read_unaligned() });
                attribute.pValue = std::ptr::from_mut(key_type).cast();
            }
            attribute.type_ = swap(&self.attributes, attribute.type_);
        }
        copy
    }
}

/// The other number of a pair; one that is in none stays.
fn swap(pairs: &[(CK_ULONG, CK_ULONG)], number: CK_ULONG) -> CK_ULONG {
    let other = |(a, b): &(CK_ULONG, CK_ULONG)| match number {
        n if n == *a => Some(*b),
        n if n == *b => Some(*a),
        _ => None,
    };
    pairs.iter().find_map(other).unwrap_or(number)
}

fn write(pairs: &[(CK_ULONG, CK_ULONG)]) -> String {
    pairs.iter().map(|(a, b)| format!("{a}={b} ")).collect()
}

fn read(text: &str) -> Vec<(CK_ULONG, CK_ULONG)> {
    let pair = |word: &str| {
        let (a, b) = word.split_once('=')?;
        Some((a.parse().ok()?, b.parse().ok()?))
    };
    text.split_whitespace().filter_map(pair).collect()
}

// === Functions around the real module's ===

struct Real {
    table: CK_FUNCTION_LIST_3_2,
    numbers: Renumbering,
}

static REAL: OnceLock<Real> = OnceLock::new();

/// Puts functions that change the numbers into the real module's table, if the environment names any.
pub(crate) fn replace(table: &mut CK_FUNCTION_LIST_3_2) {
    let numbers = Renumbering::from_environment();
    if numbers == Renumbering::default() || REAL.set(Real { table: *table, numbers }).is_err() {
        return;
    }
    table.C_GetMechanismList = Some(C_GetMechanismList);
    table.C_GetMechanismInfo = Some(C_GetMechanismInfo);
    table.C_GenerateKeyPair = Some(C_GenerateKeyPair);
    table.C_FindObjectsInit = Some(C_FindObjectsInit);
    table.C_SignInit = Some(C_SignInit);
    table.C_DecapsulateKey = table.C_DecapsulateKey.and(Some(C_DecapsulateKey));
}

/// Calls a function of the real module's.
macro_rules! real {
    ($real:ident.$function:ident($($argument:expr),*)) => {
        match $real.table.$function {
            // SAFETY: the caller keeps PKCS#11's contract; what was changed lives until the call returns.
            Some(function) => unsafe { function($($argument),*) },
            None => CKR_FUNCTION_NOT_SUPPORTED,
        }
    };
}

unsafe extern "C" fn C_GetMechanismList(
    slot: CK_SLOT_ID,
    list: CK_MECHANISM_TYPE_PTR,
    count: CK_ULONG_PTR,
) -> CK_RV {
    let Some(real) = REAL.get() else { return CKR_FUNCTION_NOT_SUPPORTED };
    let code = real!(real.C_GetMechanismList(slot, list, count));
    if code == CKR_OK && !list.is_null() {
        // SAFETY: the function just succeeded, so there are as many as it says.
        unsafe {
            for n in 0..usize::try_from(*count).unwrap_or(0) {
                let number = list.add(n);
                *number = swap(&real.numbers.mechanisms, *number);
            }
        }
    }
    code
}

unsafe extern "C" fn C_GetMechanismInfo(
    slot: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: CK_MECHANISM_INFO_PTR,
) -> CK_RV {
    let Some(real) = REAL.get() else { return CKR_FUNCTION_NOT_SUPPORTED };
    real!(real.C_GetMechanismInfo(slot, swap(&real.numbers.mechanisms, mechanism), info))
}

unsafe extern "C" fn C_GenerateKeyPair(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    public: CK_ATTRIBUTE_PTR,
    public_count: CK_ULONG,
    private: CK_ATTRIBUTE_PTR,
    private_count: CK_ULONG,
    public_key: CK_OBJECT_HANDLE_PTR,
    private_key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    let Some(real) = REAL.get() else { return CKR_FUNCTION_NOT_SUPPORTED };
    let (mut public_type, mut private_type) = (0, 0);
    // SAFETY: a template is as long as its count says.
    let (public, private) = unsafe { (slice(public, public_count), slice(private, private_count)) };
    let mut public = real.numbers.template(public, &mut public_type);
    let mut private = real.numbers.template(private, &mut private_type);
    // SAFETY: a mechanism is null, or one.
    let mut mechanism = unsafe { renumbered(real, mechanism) };
    real!(real.C_GenerateKeyPair(
        session,
        pointer(&mut mechanism),
        public.as_mut_ptr(),
        public_count,
        private.as_mut_ptr(),
        private_count,
        public_key,
        private_key
    ))
}

unsafe extern "C" fn C_FindObjectsInit(
    session: CK_SESSION_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
) -> CK_RV {
    let Some(real) = REAL.get() else { return CKR_FUNCTION_NOT_SUPPORTED };
    let mut key_type = 0;
    // SAFETY: a template is as long as its count says.
    let mut template = real.numbers.template(unsafe { slice(template, count) }, &mut key_type);
    real!(real.C_FindObjectsInit(session, template.as_mut_ptr(), count))
}

unsafe extern "C" fn C_SignInit(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    key: CK_OBJECT_HANDLE,
) -> CK_RV {
    let Some(real) = REAL.get() else { return CKR_FUNCTION_NOT_SUPPORTED };
    // SAFETY: a mechanism is null, or one.
    let mut mechanism = unsafe { renumbered(real, mechanism) };
    real!(real.C_SignInit(session, pointer(&mut mechanism), key))
}

unsafe extern "C" fn C_DecapsulateKey(
    session: CK_SESSION_HANDLE,
    mechanism: CK_MECHANISM_PTR,
    private: CK_OBJECT_HANDLE,
    template: CK_ATTRIBUTE_PTR,
    count: CK_ULONG,
    ciphertext: CK_BYTE_PTR,
    length: CK_ULONG,
    key: CK_OBJECT_HANDLE_PTR,
) -> CK_RV {
    let Some(real) = REAL.get() else { return CKR_FUNCTION_NOT_SUPPORTED };
    // SAFETY: a mechanism is null, or one.
    let mut mechanism = unsafe { renumbered(real, mechanism) };
    real!(real.C_DecapsulateKey(
        session,
        pointer(&mut mechanism),
        private,
        template,
        count,
        ciphertext,
        length,
        key
    ))
}

/// A copy of a mechanism in the other side's number.
///
/// # Safety
/// It is null, or points to one.
unsafe fn renumbered(real: &Real, mechanism: CK_MECHANISM_PTR) -> Option<CK_MECHANISM> {
    // SAFETY: by this function's contract.
    let mechanism = unsafe { mechanism.as_ref() }?;
    Some(CK_MECHANISM { mechanism: swap(&real.numbers.mechanisms, mechanism.mechanism), ..*mechanism })
}

fn pointer(mechanism: &mut Option<CK_MECHANISM>) -> CK_MECHANISM_PTR {
    mechanism.as_mut().map_or(std::ptr::null_mut(), std::ptr::from_mut)
}

/// # Safety
/// `first` is null, or points to `count` attributes that stay as they are meanwhile.
unsafe fn slice<'a>(first: CK_ATTRIBUTE_PTR, count: CK_ULONG) -> &'a [CK_ATTRIBUTE] {
    match usize::try_from(count) {
        // SAFETY: by this function's contract.
        Ok(count) if !first.is_null() => unsafe { std::slice::from_raw_parts(first, count) },
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_change_places_and_others_stay() {
        let pairs = [(28, 0x8000_0101), (29, 0x8000_0102)];
        for (number, other) in [(28, 0x8000_0101), (0x8000_0102, 29), (0x1057, 0x1057)] {
            assert_eq!(swap(&pairs, number), other);
        }
        assert_eq!(read(&write(&pairs)), pairs);
    }
}

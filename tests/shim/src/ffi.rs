//! C's side: the functions of PKCS#11 that keyd's worker uses, each around the real module's.

#![allow(non_snake_case, reason = "PKCS#11's names")]

use std::ptr;
use std::sync::OnceLock;

use cryptoki_sys::{
    CK_ATTRIBUTE_PTR, CK_BBOOL, CK_BYTE_PTR, CK_FLAGS, CK_FUNCTION_LIST, CK_FUNCTION_LIST_3_0,
    CK_FUNCTION_LIST_3_2, CK_FUNCTION_LIST_PTR_PTR, CK_INTERFACE, CK_INTERFACE_PTR, CK_MECHANISM_INFO_PTR,
    CK_MECHANISM_PTR, CK_MECHANISM_TYPE, CK_MECHANISM_TYPE_PTR, CK_NOTIFY, CK_OBJECT_HANDLE,
    CK_OBJECT_HANDLE_PTR, CK_RV, CK_SESSION_HANDLE, CK_SESSION_HANDLE_PTR, CK_SESSION_INFO_PTR, CK_SLOT_ID,
    CK_SLOT_ID_PTR, CK_SLOT_INFO_PTR, CK_TOKEN_INFO_PTR, CK_ULONG, CK_ULONG_PTR, CK_USER_TYPE,
    CK_UTF8CHAR_PTR, CK_VERSION, CK_VERSION_PTR, CK_VOID_PTR, CKR_FUNCTION_NOT_SUPPORTED, CKR_GENERAL_ERROR,
    CKR_OK, Pkcs11,
};

use crate::fault::{Action, Fault, When};
use crate::{plan, renumber};

/// Defines a forwarder for each function, and `replace`, which puts them into a table. What stands after `->` is where
/// the function gives bytes: a pointer and their number.
macro_rules! forward {
    ($($function:ident($($name:ident: $type:ty),*) $(-> $bytes:ident, $length:expr)?;)*) => {
        $(
            unsafe extern "C" fn $function($($name: $type),*) -> CK_RV {
                let carry_out = || match real().ok().and_then(|real| real.table.$function) {
                    // SAFETY: the caller keeps PKCS#11's contract for this function, whose arguments go on unchanged.
                    Some(function) => unsafe { function($($name),*) },
                    None => CKR_FUNCTION_NOT_SUPPORTED,
                };
                let garble = || {
                    // SAFETY: the function just succeeded, so what it gives is there, as long as it says.
                    $(unsafe { garble($bytes, $length) })?
                };
                around(stringify!($function), carry_out, garble)
            }
        )*

        fn replace(table: &mut CK_FUNCTION_LIST_3_2) {
            $(
                if table.$function.is_some() {
                    table.$function = Some($function);
                }
            )*
        }
    };
}

forward! {
    C_Initialize(arguments: CK_VOID_PTR);
    C_Finalize(reserved: CK_VOID_PTR);
    C_GetSlotList(present: CK_BBOOL, slots: CK_SLOT_ID_PTR, count: CK_ULONG_PTR);
    C_GetSlotInfo(slot: CK_SLOT_ID, info: CK_SLOT_INFO_PTR);
    C_GetTokenInfo(slot: CK_SLOT_ID, info: CK_TOKEN_INFO_PTR);
    C_GetMechanismList(slot: CK_SLOT_ID, list: CK_MECHANISM_TYPE_PTR, count: CK_ULONG_PTR);
    C_GetMechanismInfo(slot: CK_SLOT_ID, mechanism: CK_MECHANISM_TYPE, info: CK_MECHANISM_INFO_PTR);
    C_InitToken(slot: CK_SLOT_ID, pin: CK_UTF8CHAR_PTR, pin_length: CK_ULONG, label: CK_UTF8CHAR_PTR);
    C_InitPIN(session: CK_SESSION_HANDLE, pin: CK_UTF8CHAR_PTR, pin_length: CK_ULONG);
    C_OpenSession(slot: CK_SLOT_ID, flags: CK_FLAGS, application: CK_VOID_PTR, notify: CK_NOTIFY, session: CK_SESSION_HANDLE_PTR);
    C_CloseSession(session: CK_SESSION_HANDLE);
    C_GetSessionInfo(session: CK_SESSION_HANDLE, info: CK_SESSION_INFO_PTR);
    C_Login(session: CK_SESSION_HANDLE, user: CK_USER_TYPE, pin: CK_UTF8CHAR_PTR, pin_length: CK_ULONG);
    C_Logout(session: CK_SESSION_HANDLE);
    C_DestroyObject(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE);
    C_GetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG)
        -> template, count;
    C_SetAttributeValue(session: CK_SESSION_HANDLE, object: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_FindObjectsInit(session: CK_SESSION_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG);
    C_FindObjects(session: CK_SESSION_HANDLE, objects: CK_OBJECT_HANDLE_PTR, most: CK_ULONG, count: CK_ULONG_PTR);
    C_FindObjectsFinal(session: CK_SESSION_HANDLE);
    C_EncryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Encrypt(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR)
        -> out, out_length;
    C_DecryptInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Decrypt(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR)
        -> out, out_length;
    C_SignInit(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, key: CK_OBJECT_HANDLE);
    C_Sign(session: CK_SESSION_HANDLE, data: CK_BYTE_PTR, length: CK_ULONG, out: CK_BYTE_PTR, out_length: CK_ULONG_PTR)
        -> out, out_length;
    C_GenerateKey(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
    C_GenerateKeyPair(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, public: CK_ATTRIBUTE_PTR, public_count: CK_ULONG, private: CK_ATTRIBUTE_PTR, private_count: CK_ULONG, public_key: CK_OBJECT_HANDLE_PTR, private_key: CK_OBJECT_HANDLE_PTR);
    C_DeriveKey(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, base: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
    C_DecapsulateKey(session: CK_SESSION_HANDLE, mechanism: CK_MECHANISM_PTR, private: CK_OBJECT_HANDLE, template: CK_ATTRIBUTE_PTR, count: CK_ULONG, ciphertext: CK_BYTE_PTR, length: CK_ULONG, key: CK_OBJECT_HANDLE_PTR);
}

/// Gives the table of a module without interfaces (PKCS#11 2.40 §5.4).
///
/// # Safety
/// `list` is null or points to a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetFunctionList(list: CK_FUNCTION_LIST_PTR_PTR) -> CK_RV {
    let carry_out = || match shown() {
        Ok(shown) if !list.is_null() => {
            // SAFETY: by this function's contract. The longer table begins as the shorter one.
            unsafe { *list = ptr::from_ref(&shown.table).cast::<CK_FUNCTION_LIST>().cast_mut() };
            CKR_OK
        }
        Ok(_) => CKR_GENERAL_ERROR,
        Err(code) => code,
    };
    around("C_GetFunctionList", carry_out, || {})
}

/// Gives the only interface, whatever is asked for (PKCS#11 3.2 §5.4).
///
/// # Safety
/// `interface` is null or points to a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn C_GetInterface(
    _name: CK_UTF8CHAR_PTR,
    _version: CK_VERSION_PTR,
    interface: *mut CK_INTERFACE_PTR,
    _flags: CK_FLAGS,
) -> CK_RV {
    let carry_out = || match shown() {
        Ok(shown) if !interface.is_null() => {
            // SAFETY: by this function's contract.
            unsafe { *interface = ptr::from_ref(&shown.interface).cast_mut() };
            CKR_OK
        }
        Ok(_) => CKR_GENERAL_ERROR,
        Err(code) => code,
    };
    around("C_GetInterface", carry_out, || {})
}

fn around(function: &str, carry_out: impl FnOnce() -> CK_RV, garble: impl FnOnce()) -> CK_RV {
    match plan::next(function) {
        None | Some(Fault { action: Action::Pass, .. }) => carry_out(),
        Some(Fault { action: Action::Garble, .. }) => {
            let code = carry_out();
            if code == CKR_OK {
                garble();
            }
            code
        }
        Some(Fault { when: When::Before, action, .. }) => happen(action).unwrap_or_else(carry_out),
        Some(Fault { when: When::After, action, .. }) => {
            let code = carry_out();
            happen(action).unwrap_or(code)
        }
    }
}

/// Lets `action` happen; gives what it has the caller told.
#[allow(clippy::disallowed_methods, reason = "the threads of a worker are not tokio's")]
fn happen(action: Action) -> Option<CK_RV> {
    match action {
        Action::Return(code) => return Some(code),
        Action::Delay(time) => std::thread::sleep(time),
        Action::Hang => loop {
            std::thread::park();
        },
        Action::Abort => std::process::abort(),
        // SAFETY: it is not sound, and the process ends by it, as a broken module's would.
        Action::Segfault => unsafe { ptr::without_provenance_mut::<u8>(8).write_volatile(1) },
        Action::Pass | Action::Garble => {}
    }
    None
}

// === Garble ===

/// Where a function gives bytes.
trait Given<Length> {
    /// # Safety
    /// They are null, or as long as `length` says.
    unsafe fn flip(self, length: Length);
}

/// # Safety
/// As [`Given::flip`].
unsafe fn garble<Length>(given: impl Given<Length>, length: Length) {
    // SAFETY: by this function's contract.
    unsafe { given.flip(length) }
}

impl Given<CK_ULONG_PTR> for CK_BYTE_PTR {
    unsafe fn flip(self, length: CK_ULONG_PTR) {
        // SAFETY: by this function's contract. A null pointer asks for the length alone.
        unsafe {
            if !self.is_null() && *length > 0 {
                *self ^= 1;
            }
        }
    }
}

impl Given<CK_ULONG> for CK_ATTRIBUTE_PTR {
    unsafe fn flip(self, count: CK_ULONG) {
        for index in 0..usize::try_from(count).unwrap_or(0) {
            // SAFETY: by this function's contract there are `count` attributes, each null or as long as it says.
            unsafe {
                let attribute = *self.add(index);
                if !attribute.pValue.is_null() && attribute.ulValueLen > 0 {
                    *attribute.pValue.cast::<u8>() ^= 1;
                }
            }
        }
    }
}

// === The real module ===

/// The real module, in a table that may be longer than its own; under a vendor's numbers where a test says so.
struct Real {
    table: CK_FUNCTION_LIST_3_2,
    /// Keeps what the table points to.
    _library: Pkcs11,
}

/// What keyd's worker sees.
struct Shown {
    table: CK_FUNCTION_LIST_3_2,
    interface: CK_INTERFACE,
}

// SAFETY: a shown table is written once, before anything points to it.
unsafe impl Send for Shown {}
// SAFETY: as above.
unsafe impl Sync for Shown {}

fn shown() -> Result<&'static Shown, CK_RV> {
    static SHOWN: OnceLock<Box<Shown>> = OnceLock::new();
    let real = real()?;
    Ok(SHOWN.get_or_init(|| {
        let mut table = real.table;
        replace(&mut table);
        table.C_GetFunctionList = Some(C_GetFunctionList);
        let name = c"PKCS 11".as_ptr().cast_mut().cast();
        let mut shown = Box::new(Shown {
            table,
            interface: CK_INTERFACE { pInterfaceName: name, pFunctionList: ptr::null_mut(), flags: 0 },
        });
        shown.interface.pFunctionList = ptr::from_mut(&mut shown.table).cast();
        shown
    }))
}

fn real() -> Result<&'static Real, CK_RV> {
    static REAL: OnceLock<Result<Real, CK_RV>> = OnceLock::new();
    REAL.get_or_init(load).as_ref().map_err(|code| *code)
}

fn load() -> Result<Real, CK_RV> {
    let module = std::env::var_os(plan::MODULE).ok_or(CKR_GENERAL_ERROR)?;
    // SAFETY: loading a module runs its code, which is what a test names it for.
    let library = unsafe { Pkcs11::new(module) }.map_err(|_| CKR_GENERAL_ERROR)?;
    let mut table = CK_FUNCTION_LIST_3_2::default();
    // SAFETY: the module keeps PKCS#11's contract: what it gives is a table as long as its version has functions, and
    // the tables of later versions begin as those of earlier ones.
    unsafe {
        let list = function_list(&library)?;
        let CK_VERSION { major, minor } = *list.cast();
        let size = match (major, minor) {
            (3, 2..) => size_of::<CK_FUNCTION_LIST_3_2>(),
            (3, _) => size_of::<CK_FUNCTION_LIST_3_0>(),
            _ => size_of::<CK_FUNCTION_LIST>(),
        };
        ptr::copy_nonoverlapping(list, ptr::from_mut(&mut table).cast::<u8>(), size);
    }
    renumber::replace(&mut table);
    Ok(Real { table, _library: library })
}

/// The module's default table.
///
/// # Safety
/// The library is a PKCS#11 module.
unsafe fn function_list(library: &Pkcs11) -> Result<*const u8, CK_RV> {
    // SAFETY: both functions get a place for what they give, as PKCS#11 wants it.
    unsafe {
        let mut interface: CK_INTERFACE_PTR = ptr::null_mut();
        if library.C_GetInterface.is_ok()
            && library.C_GetInterface(ptr::null_mut(), ptr::null_mut(), &raw mut interface, 0) == CKR_OK
            && !interface.is_null()
        {
            return Ok((*interface).pFunctionList.cast_const().cast());
        }
        let mut list = ptr::null_mut();
        match library.C_GetFunctionList(&raw mut list) {
            CKR_OK => Ok(list.cast_const().cast()),
            code => Err(code),
        }
    }
}

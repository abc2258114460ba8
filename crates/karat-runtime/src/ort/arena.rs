//! One arena for what passes on the processor compute with.
//!
//! By itself each session keeps an arena, as large as its largest pass was. Of many sessions few run at once, so that one
//! arena for all of them holds far less. It grows by what is asked for, so that it can give that back.

use std::ptr;

use ::ort::{
    AsPointer,
    environment::Environment,
    memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType},
};

/// Grow by as much as is asked for, not by powers of two.
const SAME_AS_REQUESTED: usize = 1;

/// Gives the environment an arena, which sessions take that are told to.
#[expect(unsafe_code, reason = "ort has no call for it")]
pub(super) fn share(environment: &Environment) -> Result<(), ::ort::Error> {
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let api = ::ort::api();
    let keys = [c"arena_extend_strategy".as_ptr()];
    let values = [SAME_AS_REQUESTED];
    let mut settings = ptr::null_mut();
    // SAFETY: keys and values are as many as is said and outlive the call, which makes the settings or says why not.
    unsafe {
        let made = (api.CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), &raw mut settings);
        ::ort::Error::result_from_status(made)?;
    }
    // SAFETY: environment, memory and settings live; no session has been started in the environment yet, and the settings
    // are copied.
    unsafe {
        let registered = (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), memory.ptr(), settings);
        (api.ReleaseArenaCfg)(settings);
        ::ort::Error::result_from_status(registered)
    }
}

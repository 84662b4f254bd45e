//! The boot scripts that we ship, under the real bootloaders: U-Boot and GRUB (EFI) on an emulated arm64 machine, with
//! variables that the updater's back-ends write. A power cycle is a run of QEMU; what a board fills in, the script's
//! commands that load and start a slot, is replaced by words on the serial console. One test starts GRUB's script just as it is
//! shipped; U-Boot's for this machine has no MMC, from which ours loads.

#[path = "bootloaders/grub.rs"]
mod grub;
#[path = "bootloaders/machine.rs"]
mod machine;
#[path = "bootloaders/uboot.rs"]
mod uboot;

# Vigil's boot script for U-Boot: takes the first slot of BOOT_ORDER that has tries left and loads, and spends a try on
# it. Variables and their meaning are those that RAUC's boot scripts use. Three places, from "board:" to "end", are the
# board's to fill in. docs/integration.md says how to build and install it.
#
# U-Boot must have hush, test, itest and setexpr; for raw copies also crc32, env import and env export.
# What is assigned without setenv is the script's own and not saved by saveenv.

# ---- board: where the variables are -------------------------------------------------------------------------------
# Empty: in U-Boot's own environment, which saveenv writes. Or mmc or virtio: in two raw copies on such a disk, for a
# U-Boot whose own environment is nowhere or in one copy.
vigil_disk=
vigil_disk_number=0
# First blocks (of 512 bytes) of the copies and blocks of each, in hexadecimal.
vigil_copy_1=1000
vigil_copy_2=1020
vigil_copy_blocks=10
# Memory that nothing else uses by now: three times a copy.
vigil_memory=42000000
# What else the raw copies keep; other names are lost when U-Boot writes.
vigil_also=
# ---- end ----------------------------------------------------------------------------------------------------------

# ---- Raw copies ---------------------------------------------------------------------------------------------------
# The format is that of U-Boot's own redundant environment and of fw_setenv: CRC-32 of the data, a flag that counts up,
# the data. The newer of two intact copies counts and only the other one is written, so that a power cut loses nothing.
if test -n "${vigil_disk}"; then
    vigil_names="BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT ${vigil_also}"
    setexpr vigil_size ${vigil_copy_blocks} * 200
    setexpr vigil_data_size ${vigil_size} - 5
    setexpr vigil_at_2 ${vigil_memory} + ${vigil_size}
    setexpr vigil_scratch ${vigil_at_2} + ${vigil_size}
    setexpr vigil_scratch_1 ${vigil_scratch} + 1
    setexpr vigil_scratch_2 ${vigil_scratch} + 2
    setexpr vigil_scratch_3 ${vigil_scratch} + 3

    # Where the parts of the copy at ${vigil_at} are, and its checksum. crc32 stores the highest byte first, the copies
    # have the lowest first.
    setenv vigil_sum 'setexpr vigil_at_b ${vigil_at} + 1; setexpr vigil_at_c ${vigil_at} + 2; setexpr vigil_at_d ${vigil_at} + 3; setexpr vigil_at_flag ${vigil_at} + 4; setexpr vigil_data ${vigil_at} + 5; crc32 ${vigil_data} ${vigil_data_size} ${vigil_scratch}'

    # Reads the copy at block ${vigil_block} to ${vigil_at}. If it is intact, vigil_ok is 1 and vigil_flag its flag.
    setenv vigil_read 'vigil_ok=0; vigil_flag=0; if ${vigil_disk} read ${vigil_at} ${vigil_block} ${vigil_copy_blocks}; then run vigil_sum; if itest.b *${vigil_at} == *${vigil_scratch_3} && itest.b *${vigil_at_b} == *${vigil_scratch_2} && itest.b *${vigil_at_c} == *${vigil_scratch_1} && itest.b *${vigil_at_d} == *${vigil_scratch}; then vigil_ok=1; setexpr.b vigil_flag_byte *${vigil_at_flag}; vigil_flag=${vigil_flag_byte}; fi; fi'

    # Writes the variables to the copy that does not count, which from then on does. Of the flag mw.b takes the low
    # byte: 0 comes after ff.
    setenv vigil_save 'if test ${vigil_current} = 1; then vigil_at=${vigil_at_2}; vigil_block=${vigil_copy_2}; vigil_current=2; else vigil_at=${vigil_memory}; vigil_block=${vigil_copy_1}; vigil_current=1; fi; setexpr vigil_next ${vigil_newest} + 1; vigil_newest=${vigil_next}; setexpr vigil_data ${vigil_at} + 5; env export -b -s ${vigil_data_size} ${vigil_data} ${vigil_names}; run vigil_sum; mw.b ${vigil_at_flag} ${vigil_newest} 1; cp.b ${vigil_scratch_3} ${vigil_at} 1; cp.b ${vigil_scratch_2} ${vigil_at_b} 1; cp.b ${vigil_scratch_1} ${vigil_at_c} 1; cp.b ${vigil_scratch} ${vigil_at_d} 1; ${vigil_disk} write ${vigil_at} ${vigil_block} ${vigil_copy_blocks}'

    ${vigil_disk} dev ${vigil_disk_number}
    vigil_at=${vigil_memory}
    vigil_block=${vigil_copy_1}
    run vigil_read
    vigil_ok_1=${vigil_ok}
    vigil_flag_1=${vigil_flag}
    vigil_at=${vigil_at_2}
    vigil_block=${vigil_copy_2}
    run vigil_read

    # Of two intact copies the one with the higher flag is newer, but 0 comes after ff.
    vigil_current=0
    if test ${vigil_ok_1} = 1; then vigil_current=1; fi
    if test ${vigil_ok} = 1; then
        if test ${vigil_ok_1} = 0; then vigil_current=2; fi
        if itest ${vigil_flag} > ${vigil_flag_1}; then vigil_current=2; fi
        if test ${vigil_ok_1} = 1; then
            if itest ${vigil_flag_1} == ff && itest ${vigil_flag} == 0; then vigil_current=2; fi
            if itest ${vigil_flag} == ff && itest ${vigil_flag_1} == 0; then vigil_current=1; fi
        fi
    fi
    vigil_newest=${vigil_flag_1}
    setexpr vigil_data ${vigil_memory} + 5
    if test ${vigil_current} = 2; then
        vigil_newest=${vigil_flag}
        setexpr vigil_data ${vigil_at_2} + 5
    fi
    if test ${vigil_current} = 0; then
        echo "vigil: neither copy of the boot variables is intact"
        setenv BOOT_ORDER
        setenv BOOT_A_LEFT
        setenv BOOT_B_LEFT
    else
        env import -d -b ${vigil_data} ${vigil_data_size} ${vigil_names}
    fi
fi

# ---- The choice ---------------------------------------------------------------------------------------------------
test -n "${BOOT_ORDER}" || setenv BOOT_ORDER "A B"
test -n "${BOOT_A_LEFT}" || setenv BOOT_A_LEFT 3
test -n "${BOOT_B_LEFT}" || setenv BOOT_B_LEFT 3

# In the second round all tries are back: a device that boots something beats one that boots nothing. A slot that is
# not in the order is not tried in any.
for vigil_round in first second; do
    for vigil_slot in ${BOOT_ORDER}; do
        vigil_left=0
        if test "${vigil_slot}" = A; then
            vigil_left=${BOOT_A_LEFT}
            if itest ${vigil_left} > 0; then setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1; fi
        fi
        if test "${vigil_slot}" = B; then
            vigil_left=${BOOT_B_LEFT}
            if itest ${vigil_left} > 0; then setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1; fi
        fi
        if itest ${vigil_left} > 0; then
            # Spent, durably, before anything is loaded: what hangs has been tried, too.
            if test -n "${vigil_disk}"; then
                run vigil_save || echo "vigil: the boot variables could not be saved"
            else
                saveenv || echo "vigil: the boot variables could not be saved"
            fi
            echo "vigil: try ${vigil_left} of slot ${vigil_slot}"
            vigil_loaded=no
            # ---- board: loads slot ${vigil_slot}, and says so only if all of it is there ----------------------------
            # The updater has verified the release. Who wants the bootloader to verify it as well loads a signed FIT
            # image here.
            vigil_part=2
            if test ${vigil_slot} = B; then vigil_part=3; fi
            if load mmc 0:${vigil_part} ${kernel_addr_r} boot/Image && load mmc 0:${vigil_part} ${fdt_addr_r} boot/board.dtb; then
                vigil_loaded=yes
            fi
            # ---- end ------------------------------------------------------------------------------------------------
            if test ${vigil_loaded} = yes; then
                # ---- board: starts what was loaded; the kernel's command line says which slot it is -----------------
                setenv bootargs "root=/dev/mmcblk0p${vigil_part} ro rootwait vigil.slot=${vigil_slot}"
                booti ${kernel_addr_r} - ${fdt_addr_r}
                # ---- end --------------------------------------------------------------------------------------------
            fi
            echo "vigil: slot ${vigil_slot} does not start"
        fi
    done
    if test ${vigil_round} = first; then
        echo "vigil: no slot of ${BOOT_ORDER} has tries left, they are given anew"
        for vigil_slot in ${BOOT_ORDER}; do
            if test "${vigil_slot}" = A; then setenv BOOT_A_LEFT 3; fi
            if test "${vigil_slot}" = B; then setenv BOOT_B_LEFT 3; fi
        done
    fi
done
echo "vigil: no slot starts"

#include "go_asm.h"
#include "textflag.h"

#define sysArchPrctl 158
#define archSetFS 0x1002
#define stackguard0 16 // of a g

// fairway_start is the entry point if the linker is told so (-E fairway_start). It
// calls early on what is a thread of the runtime's, as far as compiled code can
// tell: its local storage names a g, whose stack has no end as stackguard0 is 0.
// Once early returns it goes to the runtime's own entry point, which finds
// everything as the kernel left it.
//
// From SP: the arguments of early, local storage at 24, the g at 32.
TEXT fairway_start(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUBQ	$64, SP
	MOVQ	$sysArchPrctl, AX
	MOVQ	$archSetFS, DI
	LEAQ	32(SP), SI
	SYSCALL
	MOVQ	$0, (32+stackguard0)(SP)
	LEAQ	32(SP), AX
	MOVQ	TLS, CX
	MOVQ	AX, 0(CX)(TLS*1)
	LEAQ	memory<>(SB), AX
	MOVQ	AX, 0(SP)
	LEAQ	memory<>+question__size(SB), AX
	MOVQ	AX, 8(SP)
	LEAQ	64(SP), AX
	MOVQ	AX, 16(SP)
	CALL	·early(SB)
	ADDQ	$64, SP
	JMP	_rt0_amd64_linux(SB)

// func handed() *question
TEXT ·handed(SB),NOSPLIT,$0-8
	LEAQ	memory<>(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// A question and its room.
GLOBL memory<>(SB), NOPTR, $(question__size+2*const_usual)

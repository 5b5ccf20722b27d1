//go:build !race && !msan && !asan

#include "go_asm.h"
#include "textflag.h"

#define sysArchPrctl 158
#define archSetFS 0x1002

// Of memory.
#define localStorage 8
#define begun (8+1024)

// fairway_start is the entry point if the linker is told so (-E fairway_start). It
// calls early on what is a thread of the runtime's, as far as compiled code can
// tell: its local storage names a g, whose stack has no end as all of it is 0,
// wherever in it the runtime has the stack's bound. Once early returns it goes to
// the runtime's own entry point, which finds everything as the kernel left it.
TEXT fairway_start(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUBQ	$32, SP	// for the arguments of early
	MOVQ	$sysArchPrctl, AX
	MOVQ	$archSetFS, DI
	LEAQ	memory<>+localStorage(SB), SI
	SYSCALL
	LEAQ	memory<>+localStorage(SB), AX
	MOVQ	TLS, CX
	MOVQ	AX, 0(CX)(TLS*1)
	LEAQ	memory<>+begun(SB), AX
	MOVQ	AX, 0(SP)
	LEAQ	memory<>+(begun+question__size)(SB), AX
	MOVQ	AX, 8(SP)
	LEAQ	32(SP), AX
	MOVQ	AX, 16(SP)
	CALL	·early(SB)
	ADDQ	$32, SP
	JMP	_rt0_amd64_linux(SB)

// func handed() *question
TEXT ·handed(SB),NOSPLIT,$0-8
	LEAQ	memory<>+begun(SB), AX
	MOVQ	AX, ret+0(FP)
	RET

// Where local storage has the address of the g, which is behind it (a g has less
// than half of this room), a question and its room.
GLOBL memory<>(SB), NOPTR, $(begun+question__size+2*const_usual)

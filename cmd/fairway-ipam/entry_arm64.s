#include "go_asm.h"
#include "textflag.h"

#define stackguard0 16 // of a g

// fairway_start: see entry_amd64.s. Here the g is in a register.
//
// From RSP: early's place for the return address, its arguments, the g at 32.
TEXT fairway_start(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUB	$64, RSP
	MOVD	ZR, (32+stackguard0)(RSP)
	ADD	$32, RSP, g
	MOVD	$memory<>(SB), R1
	MOVD	R1, 8(RSP)
	MOVD	$memory<>+question__size(SB), R1
	MOVD	R1, 16(RSP)
	ADD	$64, RSP, R1
	MOVD	R1, 24(RSP)
	CALL	·early(SB)
	ADD	$64, RSP
	JMP	_rt0_arm64_linux(SB)

// func handed() *question
TEXT ·handed(SB),NOSPLIT,$0-8
	MOVD	$memory<>(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// A question and its room.
GLOBL memory<>(SB), NOPTR, $(question__size+2*const_usual)

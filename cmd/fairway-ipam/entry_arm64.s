//go:build !race && !msan && !asan

#include "go_asm.h"
#include "textflag.h"

// Of memory: see entry_amd64.s. Here the g is in a register.
#define begun 1024

// fairway_start: see entry_amd64.s.
TEXT fairway_start(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	SUB	$32, RSP	// for a return address and the arguments of early
	MOVD	$memory<>(SB), g
	MOVD	$memory<>+begun(SB), R1
	MOVD	R1, 8(RSP)
	MOVD	$memory<>+(begun+question__size)(SB), R1
	MOVD	R1, 16(RSP)
	ADD	$32, RSP, R1
	MOVD	R1, 24(RSP)
	CALL	·early(SB)
	ADD	$32, RSP
	JMP	_rt0_arm64_linux(SB)

// func handed() *question
TEXT ·handed(SB),NOSPLIT,$0-8
	MOVD	$memory<>+begun(SB), R0
	MOVD	R0, ret+0(FP)
	RET

// A g, a question and its room.
GLOBL memory<>(SB), NOPTR, $(begun+question__size+2*const_usual)

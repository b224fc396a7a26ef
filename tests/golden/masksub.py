# SPDX-License-Identifier: Apache-2.0
"""Writes masksub.f32 with PyTorch in double: the two halves of MaskSub's loss on one frozen linear head
that is masked by scores of its own, and the gradients with respect to the features of the whole and of
the masked pass, and to the scores. The target of the masked half is detached.
Run: python3 tests/golden/masksub.py"""
import torch
import torch.nn.functional as F
from write import write

ROWS, WIDTH, CLASSES = 9, 16, 5
torch.manual_seed(11)
torch.set_default_dtype(torch.float64)


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx, s):
        return (s > 0).double()

    @staticmethod
    def backward(ctx, g):
        return g


def normal(*shape):
    return torch.randn(*shape).float().double()


whole, masked = normal(ROWS, WIDTH).requires_grad_(), normal(ROWS, WIDTH).requires_grad_()
W = normal(CLASSES, WIDTH)
S = (torch.rand(CLASSES, WIDTH) - .2).float().double().requires_grad_()
labels = torch.arange(ROWS) * 7 % CLASSES
m = StraightThrough.apply(S)
head = W * m / torch.sqrt(m.mean())
o1, o2 = whole @ head.t(), masked @ head.t()
main = F.cross_entropy(o1, labels)
sub = -(F.softmax(o1.detach(), dim=1) * F.log_softmax(o2, dim=1)).sum(1).mean()
((main + sub) / 2).backward()
write("masksub.f32", whole.detach().numpy(), masked.detach().numpy(), W.numpy(), S.detach().numpy(),
      [main.item(), sub.item()], whole.grad.numpy(), masked.grad.numpy(), S.grad.numpy())
